"""Shards that come back from workers without our disk, through fsspec's file system in memory; S3: test_object_storage.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tasks import exchange
from tasks.exchange import offer, sample_shard_at, take_shard, withdraw
from tasks.params import load_params
from tasks.sample import Made, finish, plan_shards, sample_shard
from tasks.store import ClipStore
from tasks.store_check import verify


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    storage = MemoryFileSystem()
    storage.store.clear()
    yield storage
    storage.store.clear()


def test_what_comes_back_is_what_threads_make(line: Path, tmp_path: Path, bucket: MemoryFileSystem,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(shard: int, *rest: Path, **more: str) -> Made:
        asked.append(shard)
        return sample_shard(shard, *rest, **more)

    def watched(shard: int, checkpoint: Path, conditions: Path, out: Path, device: str) -> Made:
        assert not out.is_relative_to(tmp_path / "own") and not checkpoint.is_relative_to(line)  # a worker has its own disk
        return counted(shard, checkpoint, conditions, out, device=device)

    monkeypatch.setattr(exchange, "sample_shard", watched)
    tree, out, url = load_params(line / "params.yaml"), tmp_path / "own", "memory://bucket/"
    checkpoint, conditions = line / "data/checkpoints/sfvd", line / "data/conditions"
    left = plan_shards(tree.samples["sfvd"], tree.seed, checkpoint, conditions, out)
    assert len(left) == 3
    address = offer(url, checkpoint, conditions, out)
    for shard in left[1:]:
        assert sample_shard_at(address, shard).clips == 2
    assert sample_shard_at(address, left[1]) == Made() and asked == left[1:]  # it is there
    for shard in left[1:]:
        take_shard(address, shard, out)

    # the stage is killed here and started again: what it has taken is left alone, what is in the exchange is not made again
    assert plan_shards(tree.samples["sfvd"], tree.seed, checkpoint, conditions, out) == left[:1]
    assert offer(url, checkpoint, conditions, out) == address
    assert sample_shard_at(address, left[0]).clips == 2
    take_shard(address, left[0], out)
    finish("sfvd", conditions, checkpoint, out)
    assert ClipStore.open(out / "clips.zarr").digest == ClipStore.open(line / "data/clips/sfvd/clips.zarr").digest
    assert verify(out / "clips.zarr") == []
    withdraw(address)
    assert bucket.find("/bucket") == []


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:9] + b"!" + content[10:]])
def test_damage_on_the_way_is_noticed(line: Path, tmp_path: Path, bucket: MemoryFileSystem,
                                          damage: Callable[[bytes], bytes]) -> None:
    tree, out = load_params(line / "params.yaml"), tmp_path / "own"
    checkpoint, conditions = line / "data/checkpoints/sfvd", line / "data/conditions"
    plan_shards(tree.samples["sfvd"], tree.seed, checkpoint, conditions, out)
    address = offer("memory://bucket", checkpoint, conditions, out)
    sample_shard_at(address, 0)
    shard = next(name for name in bucket.find("/bucket") if "/frames/c.0." in name)
    bucket.pipe_file(shard, damage(bucket.cat_file(shard)))
    with pytest.raises(ValueError, match="shard 0 did not arrive as its record says"):
        take_shard(address, 0, out)
    assert ClipStore.resume(out / "clips.zarr", address.rsplit("/", 1)[1]).done() == set()
