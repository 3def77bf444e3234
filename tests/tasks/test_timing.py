"""Overhead in closed form, and bytes as the file system counts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.curate import EVIDENCE
from tasks.sample import Made
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_json
from tasks.timing import curation_time, sampling_time


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Five clips in shards of two."""
    store = ClipStore.create(tmp_path / "set/clips.zarr", {"frames": ArraySpec((3, 8, 6, 1), "uint8")}, 2, "f")
    for shard, size in enumerate((2, 2, 1)):
        pixels = np.random.default_rng(shard).integers(0, 256, (size, 3, 8, 6, 1), dtype=np.uint8)
        store.write_shard(shard, [f"{shard}/{row}" for row in range(size)], {"frames": pixels})
    store.finish(5)
    return tmp_path / "set"


def test_overhead_is_what_workers_did_beside_the_generator(clips: Path, tmp_path: Path) -> None:
    made = [Made(2, 6.0, 5.0), Made(), Made(1, 3.0, 2.5)]  # the second shard was there
    found = sampling_time(made, 5.0, 2, clips, tmp_path / "times/a.json")
    assert found == read_json(tmp_path / "times/a.json")
    assert [found[name] for name in ("clips", "shards", "model_seconds", "cpu_seconds")] == [3, 2, 9.0, 7.5]
    assert found["overhead"] == pytest.approx(1 - 9 / 10)
    stored = sum(file.stat().st_size for file in (clips / "clips.zarr/frames").glob("c.*"))
    assert found["bytes_a_clip"] == stored / 5
    assert found["clip"] == {"frames": 3, "height": 8, "width": 6, "channels": 1} and found["shard_clips"] == 2


def test_a_run_that_made_nothing_leaves_what_the_last_one_said(clips: Path, tmp_path: Path) -> None:
    sampling_time([Made(5, 4.0)], 5.0, 1, clips, tmp_path / "a.json")
    assert sampling_time([], 0.1, 1, clips, tmp_path / "a.json") == {}
    assert read_json(tmp_path / "a.json")["overhead"] == pytest.approx(0.2)


def test_filters_together(tmp_path: Path) -> None:
    for name, sizes in {"agreement": (4, 4), "similarity": (300, 60)}.items():
        (tmp_path / EVIDENCE / name).mkdir(parents=True)
        for shard, size in enumerate(sizes):
            (tmp_path / EVIDENCE / name / f"{shard:05d}.safetensors").write_bytes(bytes(size))
    curation_time(12, 3.0, 1, tmp_path, tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")
    assert (found["clips"], found["wall_seconds"], found["workers"]) == (12, 3.0, 1)
    assert found["evidence_bytes_a_clip"] == 360 / 12  # of the largest: filters decide one after the other
    assert found["cores"] >= 1 and found["threads"] >= 1 and found["load"] >= 0
