"""Statistics of looks and motion: known values, and sets that flicker or stand still stand out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_line import build, params
from torch.nn import functional

from tasks.appearance import look
from tasks.metrics.appearance import MEASURES, appearance
from tasks.records import ClipRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_table


def test_values_of_pictures_one_can_count() -> None:
    still = torch.zeros(1, 3, 1, 16, 16)
    assert all(float(value) < 1e-6 for value in appearance(still).values())
    stripes = torch.ones(1, 2, 1, 16, 16)
    stripes[..., ::2] = -1
    found = {name: float(value) for name, value in appearance(stripes).items()}
    wanted = {"contrast": 1.0, "sharpness": 1.0, "frame_change": 0.0, "warping_error": 0.0, "motion_energy": 0.0}
    assert found == pytest.approx(wanted, abs=1e-6)
    blink = torch.full((1, 3, 1, 16, 16), 0.25)
    blink[:, 1] = -0.25
    assert float(appearance(blink)["frame_change"]) == pytest.approx(0.5)


def test_motion_energy_is_the_length_of_the_shift() -> None:
    wide = torch.rand(40, 60, generator=torch.Generator().manual_seed(0)) * 2 - 1
    clip = torch.stack([wide[:, 10 + 2 * t : 42 + 2 * t] for t in range(3)])[None, :, None]
    assert float(appearance(clip)["motion_energy"]) == pytest.approx(2.0, abs=0.25)


def test_motion_explains_a_shift_and_not_a_flicker() -> None:
    rng = torch.Generator().manual_seed(0)
    wide = functional.avg_pool2d(torch.rand(1, 1, 200, 300, generator=rng) * 2 - 1, 5)[0, 0] * 3
    moving = torch.stack([wide[:, 10 + 2 * t : 42 + 2 * t] for t in range(3)])[None, :, None]
    found = appearance(moving)
    assert float(found["warping_error"]) < 0.4 * float(found["frame_change"])
    flicker = torch.rand(1, 3, 1, 40, 40, generator=rng) * 2 - 1
    found = appearance(flicker)
    assert float(found["warping_error"]) > 0.6 * float(found["frame_change"])


def test_a_set_is_measured_beside_the_real_training_clips(tmp_path: Path) -> None:
    build(tmp_path, params())
    prepared = tmp_path / "prepared"
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    train = [row for row, record in enumerate(records) if record.split == "train"]
    real = ClipStore.open(prepared / "clips.zarr").load(train)["frames"]
    flicker = real.copy()
    flicker[:, ::2] = 255 - flicker[:, ::2]
    sets = {"same": real, "flicker": flicker, "still": np.repeat(real[:, :1], real.shape[1], 1)}
    found = {}
    for name, frames in sets.items():
        store = ClipStore.create(tmp_path / name / "clips.zarr", {"frames": ArraySpec(frames.shape[1:], "uint8")}, 64, "g")
        store.write_shard(0, [f"{row:032x}" for row in range(len(frames))], {"frames": frames})
        store.finish(len(frames))
        found[name] = look(prepared, tmp_path / name, tmp_path / name)
        assert json.loads((tmp_path / name / "appearance.json").read_text()) == found[name]
        assert list(found[name]) == list(MEASURES)
    for one in found["same"].values():
        assert one["value"] == pytest.approx(one["real"]) and one["low"] <= one["real"] <= one["high"] and one["inside"] > 0.5
    assert found["flicker"]["frame_change"]["inside"] == 0
    assert found["flicker"]["frame_change"]["value"] > found["flicker"]["frame_change"]["high"]
    assert found["still"]["frame_change"]["value"] == found["still"]["motion_energy"]["value"] == 0
    assert found["still"]["contrast"]["inside"] > 0.5
