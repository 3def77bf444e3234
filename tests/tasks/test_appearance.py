"""Statistics of looks and motion: known values, and sets that flicker or stand still stand out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_line
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from models.critics import vae
from models.trainer import TrainParams
from tasks import appearance as module
from tasks.appearance import look
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint
from tasks.features import real_clips
from tasks.metrics.appearance import MEASURES, SPANS, along_motion, appearance, dynamic_smoothness, linear
from tasks.params import ControlParams
from tasks.records import ClipRecord
from tasks.tables import write_table
from tasks.train import training_clips


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


def test_smoothness_by_hand() -> None:
    """Frames 0, 1, 4, 9 and 16 of 100: the first and third odd one lie 1 grey level of 100 off their neighbours' mean."""
    values = torch.tensor([0.0, 1, 4, 9, 16]) / 50 - 1
    clip = values[None, :, None, None, None].expand(1, 5, 1, 16, 16)
    assert float(dynamic_smoothness(clip)) == pytest.approx(99)
    assert float(dynamic_smoothness(clip[:, :4])) == pytest.approx(99)  # the last of four has one neighbour only
    assert float(dynamic_smoothness(clip[:, :1].expand(1, 4, 1, 16, 16))) == 100
    assert float(dynamic_smoothness(clip, lambda before, after: after)) == pytest.approx(100 - (3 + 7) / 2)
    with pytest.raises(ValueError, match="needs 3 frames, but the clips have 2"):
        dynamic_smoothness(clip[:, :2])


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5, 7]))
def test_only_clips_that_stand_still_are_wholly_smooth_and_backwards_is_as_smooth(seed: int, length: int) -> None:
    clip = torch.rand(2, length, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    assert ((dynamic_smoothness(clip) >= 0) & (dynamic_smoothness(clip) < 100)).all()
    assert torch.allclose(dynamic_smoothness(clip.flip(1)), dynamic_smoothness(clip), atol=1e-4)


def test_along_its_motion_a_steady_shift_is_smooth() -> None:
    rng = torch.Generator().manual_seed(0)
    wide = functional.avg_pool2d(torch.rand(1, 1, 200, 300, generator=rng) * 2 - 1, 5)[0, 0] * 3
    moving = torch.stack([wide[:, 10 + 2 * t : 42 + 2 * t] for t in range(5)])[None, :, None]
    plain, moved = (100 - float(dynamic_smoothness(moving, one)) for one in (linear, along_motion))
    assert moved < 0.5 * plain
    shuffled = moving[:, [0, 3, 1, 4, 2]]
    assert float(dynamic_smoothness(shuffled, along_motion)) < 100 - 2 * moved


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("line")
    tiny_line.build(data, tiny_line.params())
    critic = vae.fit(vae.Params(channels=[8, 16], train=TrainParams(steps=30, batch_size=16, learning_rate=3e-3)),
                     training_clips(data / "prepared")[0], NoStates(), 0)
    save_checkpoint(data / "critics" / "vae", critic, fingerprint="f", trained_on={})
    return data / "prepared"


def real_frames(prepared: Path) -> np.ndarray:
    store, rows = real_clips(prepared, "train")
    return store.load(rows)["frames"]


def test_a_set_is_measured_beside_the_real_training_clips(prepared: Path, tmp_path: Path) -> None:
    real = real_frames(prepared)
    flicker = real.copy()
    flicker[:, ::2] = 255 - flicker[:, ::2]
    sets = {"same": real, "flicker": flicker, "still": np.repeat(real[:, :1], real.shape[1], 1)}
    found = {}
    for name, frames in sets.items():
        tiny_line.synthetic(tmp_path / name, frames, list("aabbcd"))
        found[name] = look(ControlParams(vae="vae"), prepared.parent / "critics", prepared, tmp_path / name, tmp_path / "cache",
                           tmp_path / name)
        assert json.loads((tmp_path / name / "appearance.json").read_text()) == found[name]
        assert list(found[name]) == list(MEASURES) == list(SPANS)
        for one in found[name].values():
            assert one["low"] <= one["value"] <= one["high"] and one["span"][0] <= one["value"]
            assert one["span"][1] is None or one["value"] <= one["span"][1] + 1e-4
            assert one["clips"] == {"training": 6, "synthetic": 6} and one["frames"] == tiny_line.FRAMES
            assert one["flags"] == ["4 conditions: an interval over fewer than 15 is too narrow",
                                    "6 real clips: where 90 % of so few lie is rough"]
    for one in found["same"].values():
        low, high = one["band"]
        assert one["value"] == pytest.approx(one["real"]) and low <= one["real"] <= high and one["inside"] > 0.5
    assert found["flicker"]["frame_change"]["inside"] == 0
    assert found["flicker"]["frame_change"]["low"] > found["flicker"]["frame_change"]["band"][1]
    for name in ("dynamic_smoothness", "dynamic_smoothness_flow", "vae_seq"):
        assert found["flicker"][name]["high"] < found["flicker"][name]["band"][0], name
        assert found["still"][name]["value"] == pytest.approx(100, abs=0.01) and found["still"][name]["inside"] == 0, name
    assert found["still"]["frame_change"]["value"] == found["still"]["motion_energy"]["value"] == 0
    assert found["still"]["contrast"]["inside"] > 0.5


def test_one_condition_has_no_interval_and_without_a_vae_there_is_no_vae_seq(prepared: Path, tmp_path: Path) -> None:
    tiny_line.synthetic(tmp_path / "set", real_frames(prepared), ["a"] * 6)
    found = look(ControlParams(), tmp_path, prepared, tmp_path / "set", tmp_path / "cache", tmp_path)
    assert list(found) == [name for name in MEASURES if name != "vae_seq"]
    assert all(one["low"] is None and one["high"] is None for one in found.values())


def test_two_frames_have_no_smoothness(prepared: Path, tmp_path: Path) -> None:
    real = real_frames(prepared)[:, :2]
    tiny_line.store(tmp_path / "prepared" / "clips.zarr", [f"{row:032x}" for row in range(6)], real,
                    np.zeros(real.shape[:4], np.uint8))
    write_table(tmp_path / "prepared" / "manifest.parquet",
                [ClipRecord(f"{row:032x}", "p", "0", 0, 1, None, "", False, row, "train") for row in range(6)], ClipRecord)
    tiny_line.synthetic(tmp_path / "set", real, list("abcdef"))
    found = look(ControlParams(), tmp_path, tmp_path / "prepared", tmp_path / "set", tmp_path / "cache", tmp_path)
    assert list(found) == ["contrast", "sharpness", "frame_change", "warping_error", "motion_energy"]


def test_real_clips_are_measured_once_for_all_sets(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, real = [], real_frames(prepared)
    monkeypatch.setattr(module, "appearance", lambda frames: measured.append(len(frames)) or appearance(frames))
    for name, number in (("first", 5), ("second", 4), ("first", 5)):
        tiny_line.synthetic(tmp_path / name, real[:number], list("abcde")[:number])
        look(ControlParams(), tmp_path, prepared, tmp_path / name, tmp_path / "cache", tmp_path / name)
    assert measured == [6, 5, 4]
