"""One machine with several devices: each serves one task at a time, and together they make the same bytes as one."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import flows.engine
from flows import steps
from tasks import sample
from tasks.devices import compute_threads, use_threads
from tasks.params import EngineParams, load_params
from tasks.records import ProvenanceRecord
from tasks.sample import plan_shards
from tasks.store import ClipStore
from tasks.tables import read_table


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CPU by two names, which torch takes for two devices of one kind."""
    names, free = ["cpu:0", "cpu:1"], queue.SimpleQueue[str]()
    for name in names:
        free.put(name)
    monkeypatch.setattr(steps, "_devices", free)
    return names


def test_a_device_serves_one_task_at_a_time(two_devices: list[str]) -> None:
    busy, served, most, lock = Counter[str](), Counter[str](), 0, threading.Lock()

    def work(number: int) -> None:
        nonlocal most
        with steps.device() as own:
            with lock:
                busy[own] += 1
                served[own] += 1
                most = max(most, *busy.values())
            time.sleep(0.01)
            with lock:
                busy[own] -= 1
        if number % 5 == 0:
            with pytest.raises(ZeroDivisionError), steps.device():
                raise ZeroDivisionError  # a task that fails gives its device back

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert most == 1
    assert set(served) == set(two_devices) and served.total() == 40


def test_shards_on_two_devices_are_those_of_one(line: Path, two_devices: list[str], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller shards than the line's, on two devices, by the task's own body: the same clips."""
    used: list[str] = []
    made = sample.sample_shard

    def watch(shard: int, checkpoint: Path, conditions: Path, out: Path, device: str) -> sample.Made:
        used.append(device)
        return made(shard, checkpoint, conditions, out, device)

    monkeypatch.setattr(sample, "sample_shard", watch)
    tree = load_params(line / "params.yaml")
    wanted = tree.samples["sfvd"].model_copy(update={"shard_clips": 1})
    checkpoint, conditions = line / "data/checkpoints/sfvd", line / "data/conditions"
    left = plan_shards(wanted, tree.seed, checkpoint, conditions, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(steps.sample_shard.fn, "sfvd", shard, checkpoint, conditions, tmp_path, 1) for shard in left]
    assert [run.result().clips for run in runs] == [1] * wanted.clips
    assert set(used) == set(two_devices) and len(used) == wanted.clips
    sample.finish("sfvd", conditions, checkpoint, tmp_path)
    ours, theirs = (ClipStore.open(out / "clips.zarr") for out in (tmp_path, line / "data/clips/sfvd"))
    assert ours.shard_clips != theirs.shard_clips and ours.digest == theirs.digest


def test_half_precision_is_recorded_and_made_again(line: Path, tmp_path: Path) -> None:
    tree = load_params(line / "params.yaml")
    wanted = tree.samples["sfvd"].model_copy(update={"precision": "bf16", "clips": 3})
    checkpoint, conditions = line / "data/checkpoints/sfvd", line / "data/conditions"
    for shard in plan_shards(wanted, tree.seed, checkpoint, conditions, tmp_path):
        sample.sample_shard(shard, checkpoint, conditions, tmp_path)
    sample.finish("sfvd", conditions, checkpoint, tmp_path)
    half, whole = ClipStore.open(tmp_path / "clips.zarr"), ClipStore.open(line / "data/clips/sfvd/clips.zarr")
    assert not {*half.ids} & {*whole.ids}
    apart = (half.read(range(3)).frames - whole.read(range(3)).frames).abs()
    assert 0 < apart.mean() < 0.1
    for record in read_table(tmp_path / "provenance.parquet", ProvenanceRecord):
        assert json.loads(record.sampling)["precision"] == "bf16"
        assert sample.resample(record, checkpoint, conditions)[1]


def test_what_dask_needs_is_said_before_any_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of one machine would all take its first GPU; and the extra may not be there."""
    dask = EngineParams(kind="dask")
    monkeypatch.setattr(flows.engine, "visible_devices", lambda: ["cuda:0", "cuda:1"])
    with pytest.raises(ValueError, match=r"workers here that share one GPU; give engine.address"), flows.engine.engine(dask, 1):
        pass
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    with pytest.raises(ValueError, match=r"pip install 'cinefab\[dask\]'"), flows.engine.engine(dask, 1):
        pass


def test_a_task_computes_with_the_threads_of_its_stage() -> None:
    """Another number of them gives other last bits, and Dask starts its workers with one."""
    before = compute_threads()
    try:
        use_threads(1)
        with steps.alone(threads=3):
            assert compute_threads() == 3
    finally:
        use_threads(before)
