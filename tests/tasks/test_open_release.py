"""A release behind an address: what is fetched of it, what is refused, and what it costs in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import fsspec
import hand_made
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from models.clip import DescribedClips
from tasks.open_release import Release, open_release
from tasks.placed_shards import Place, PlacedShards
from tasks.shard_reader import ShardReader, footer_bytes
from tasks.store import ClipStore

URL = "memory://bucket/wires"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[ClipStore]:
    """20 clips in shards of 8, also in fsspec's own memory."""
    store = hand_made.release(tmp_path / "release", 20, 8)
    fsspec.filesystem("memory").put(str(tmp_path / "release"), "/bucket/wires", recursive=True)
    yield store
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """File and bytes of every read of that memory."""
    reads: list[tuple[str, int]] = []
    read = MemoryFileSystem.cat_file

    def counted(self: MemoryFileSystem, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
        content: bytes = read(self, path, start, end, **kwargs)
        reads.append((path.removeprefix("/bucket/wires/"), len(content)))
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return reads


def test_only_the_clips_asked_for_are_fetched(made: ClipStore, fetched: list[tuple[str, int]]) -> None:
    release = open_release(URL)
    assert {name for name, _ in fetched} == {"release.json", "manifest.parquet", "clips.zarr/zarr.json"}
    fetched.clear()
    for name, values in release.load([9, 11]).items():
        np.testing.assert_array_equal(values, made.load([9, 11])[name])
    assert {name for name, _ in fetched} == {"clips.zarr/frames/c.1.0.0.0.0", "clips.zarr/masks/c.1.0.0.0"}
    whole = sum(path.stat().st_size for path in made.files(1).values())
    assert len(fetched) == 6 and sum(size for _, size in fetched) == pytest.approx(whole / 4, rel=0.1)
    fetched.clear()
    release.load([9])
    assert len(fetched) == 2 and footer_bytes(8) not in {size for _, size in fetched}  # the indexes are known now


def test_any_rows_in_any_order_are_the_local_reader_s(made: ClipStore) -> None:
    release = open_release(URL)
    rows = np.random.default_rng(0).integers(0, 20, 50).tolist()
    for name, values in release.load(rows).items():
        np.testing.assert_array_equal(values, made.load(rows)[name])
    assert release.load([])["frames"].shape == (0, 4, 16, 16, 1)


def test_shards_here_and_elsewhere_in_one_read(made: ClipStore) -> None:
    """As when half of a version was pulled."""
    here, there = fsspec.filesystem("file"), fsspec.filesystem("memory")
    spec = made.arrays["frames"]

    def place(name: str) -> Place:
        return (here, str(made.path / name)) if "c.1" in name else (there, f"/bucket/wires/clips.zarr/{name}")

    mixed = PlacedShards(place, "frames", 8, spec.shape, spec.dtype)
    plain = ShardReader(made.path / "frames", 8, spec.shape, spec.dtype)
    rows = [3, 17, 9, 0, 15]
    np.testing.assert_array_equal(mixed.read(rows), plain.read(rows))


def test_it_says_what_its_clips_were_asked_to_be(made: ClipStore) -> None:
    release: DescribedClips = open_release(URL)  # mypy knows the protocol
    assert release.labels[:4] == ("a", "", "", "a") and release.texts[:2] == ("", "a wire")
    batch = release.read([3, 4])
    assert batch.ids == ("clip000003", "clip000004")
    assert batch.condition.labels == ("a", "") and batch.condition.texts == ("a wire", "")
    assert isinstance(release, Release) and release[3]["label"] == "a" and release[4]["label"] == ""


@pytest.mark.parametrize(("byte", "message"), [(-9, "index is damaged"), (40, "checksum of the clip at place 0 differs")])
def test_a_flipped_bit_names_the_file(made: ClipStore, byte: int, message: str) -> None:
    memory, shard = fsspec.filesystem("memory"), "/bucket/wires/clips.zarr/frames/c.1.0.0.0.0"
    whole = bytearray(memory.cat_file(shard))
    whole[byte] ^= 1
    memory.pipe_file(shard, bytes(whole))
    release = open_release(URL)
    assert release.load([0])["frames"].any()
    with pytest.raises(ValueError, match=message) as caught:
        release.load([8])
    assert shard in str(caught.value)


def test_what_is_missing_is_no_black_clip(made: ClipStore) -> None:
    fsspec.filesystem("memory").rm("/bucket/wires/clips.zarr/frames/c.1.0.0.0.0")
    with pytest.raises(ValueError, match=r"c\.1\.0\.0\.0\.0.* is not on the remote; ask whoever released it"):
        open_release(URL).load([8])


def test_a_manifest_of_another_release_is_refused(made: ClipStore, tmp_path: Path) -> None:
    hand_made.release(tmp_path / "other", 20, 8, side=8)
    memory = fsspec.filesystem("memory")
    for name in ("manifest.parquet", "release.json"):
        memory.pipe_file(f"/bucket/wires/{name}", (tmp_path / "other" / name).read_bytes())
    with pytest.raises(ValueError, match=r"manifest is of other clips"):
        open_release(URL)


def test_memory_is_flat_in_the_number_of_clips(tmp_path: Path) -> None:
    peaks = []
    for clips in (32, 256):
        hand_made.release(tmp_path / str(clips), clips, 16, side=32, frames=8)
        release = open_release(str(tmp_path / str(clips)))
        list(release.batches(4, seed=0))  # caches and imports, once
        tracemalloc.start()
        for _ in release.batches(4, seed=1):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.6 * peaks[0]  # how far two threads overlap is not the same every time
    assert peaks[1] < 256 * 8 * 32 * 32 / 4  # of what one pass reads
