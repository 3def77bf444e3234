"""The clip store: Zarr v3, one chunk a clip, one shard one unit of work and one writer.

A shard is encoded by zarr in memory, written whole under a temporary name, synced and renamed; then its commit record is
written the same way. A shard without a valid record does not exist. Zarr alone promises less: a missing shard reads as
zeros, a flipped byte passes, nothing is synced (all measured).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from models.clip import ClipBatch, Condition, to_float
from tasks.records import ShardRecord
from tasks.shard_reader import ShardReader
from tasks.tables import atomic_write, file_digest, read_json, sync_folder, write_json

Arrays = dict[str, NDArray[Any]]
COMMITS = "commits"
SPEC = "cinefab.json"


@dataclass(frozen=True)
class ArraySpec:
    """One clip's part in one array: its shape, e.g. (T, H, W, C), and dtype."""

    shape: tuple[int, ...]
    dtype: str


def clip_digest(arrays: Arrays) -> str:
    """blake2b of one clip's arrays: name, dtype, shape and bytes, in name order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{value.dtype.str}:{value.shape}:".encode() + value.tobytes())
    return digest.hexdigest()


class ClipStore:
    """Clips by row. `create`, `resume` and `open` make one; it is a `models.clip.ClipSource` once finished."""

    def __init__(self, path: Path) -> None:
        spec = read_json(path / SPEC)
        self.path = path
        self.arrays = {name: ArraySpec(tuple(one["shape"]), one["dtype"]) for name, one in spec["arrays"].items()}
        self.shard_clips: int = spec["shard_clips"]
        self.fingerprint: str = spec["fingerprint"]
        self.clips: int | None = spec["clips"]
        self._readers = {name: ShardReader(path / name, self.shard_clips, one.shape, one.dtype) for name, one in self.arrays.items()}
        self._records: list[ShardRecord] = []
        if self.clips is not None:
            self._records = [_read_record(path, shard) for shard in range(-(-self.clips // self.shard_clips))]
        self.ids = tuple(clip for record in self._records for clip in record.ids)
        self.digests = tuple(digest for record in self._records for digest in record.digests)

    @classmethod
    def create(cls, path: Path, arrays: dict[str, ArraySpec], shard_clips: int, fingerprint: str) -> ClipStore:
        """Open what is there if it was made for the same layout and fingerprint, else start anew."""
        wanted = {"arrays": {name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in arrays.items()},
                  "shard_clips": shard_clips, "fingerprint": fingerprint}
        if (path / SPEC).exists():
            there = read_json(path / SPEC)
            if {**there, "clips": None} != {**wanted, "clips": None}:
                (path / SPEC).unlink()
                sync_folder(path)
        if not (path / SPEC).exists():
            shutil.rmtree(path, ignore_errors=True)
            _write_metadata(path, arrays, shard_clips, 0)
            write_json(path / SPEC, {**wanted, "clips": None})
        for partial in path.rglob(".*.partial"):
            partial.unlink()
        return cls(path)

    @classmethod
    def resume(cls, path: Path, fingerprint: str) -> ClipStore:
        """A store that `create` made, for another writer of its shards."""
        store = cls(path)
        if store.fingerprint != fingerprint:
            raise ValueError(f"{path}: is being written for fingerprint {store.fingerprint}, not {fingerprint}; plan again")
        return store

    @classmethod
    def open(cls, path: Path) -> ClipStore:
        """A finished store.

        Raises:
            ValueError: if there is none or it was never finished.
        """
        if not (path / SPEC).exists():
            raise ValueError(f"{path}: no clip store here; run the stage that writes it")
        store = cls(path)
        if store.clips is None:
            raise ValueError(f"{path}: not finished; run its stage again, done shards are kept")
        return store

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Over layout, ids and clip digests."""
        words = [sorted((name, spec.shape, spec.dtype) for name, spec in self.arrays.items()), self.ids, self.digests]
        return hashlib.blake2b(repr(words).encode(), digest_size=16).hexdigest()

    def done(self) -> set[int]:
        """Shards with a commit record of this fingerprint whose files have the recorded sizes."""
        found = set()
        for path in sorted((self.path / COMMITS).glob("*.json")):
            try:
                record = _read_record(self.path, int(path.stem))
            except ValueError:
                continue
            if record.fingerprint == self.fingerprint and all((self.path / name).is_file() for name in record.files):
                found.add(record.shard)
        return found

    def write_shard(self, shard: int, ids: Sequence[str], arrays: Arrays) -> ShardRecord:
        """Commit one whole shard; rewriting one replaces it.

        Raises:
            ValueError: if names, shapes or dtypes are not the store's, or more clips come than a shard holds.
        """
        if set(arrays) != set(self.arrays):
            raise ValueError(f"{self.path}: arrays are {sorted(arrays)}, but the store has {sorted(self.arrays)}")
        if not 0 < len(ids) <= self.shard_clips:
            raise ValueError(f"{self.path}: shard {shard} has {len(ids)} clips, but a shard holds 1 to {self.shard_clips}")
        for name, spec in self.arrays.items():
            value = arrays[name]
            if value.shape != (len(ids), *spec.shape) or value.dtype != np.dtype(spec.dtype):
                raise ValueError(f"{self.path}: {name} is {value.dtype}{value.shape}, but must be {spec.dtype}{(len(ids), *spec.shape)}")
        (self.path / COMMITS / f"{shard:05d}.json").unlink(missing_ok=True)
        files = {}
        for name, spec in self.arrays.items():
            target = self.path / name / _shard_key(shard, len(spec.shape))
            atomic_write(target, _encode(arrays[name], spec, self.shard_clips))
            files[str(target.relative_to(self.path))] = file_digest(target)
        digests = [clip_digest({name: arrays[name][row] for name in arrays}) for row in range(len(ids))]
        record = ShardRecord(shard, self.fingerprint, list(ids), digests, files)
        write_json(self.path / COMMITS / f"{shard:05d}.json", asdict(record))
        return record

    def finish(self, clips: int) -> None:
        """Set the arrays' length; from now on the store can be opened.

        Raises:
            ValueError: if a shard is missing or not full, or two clips have the same id.
        """
        shards = -(-clips // self.shard_clips)
        if missing := sorted(set(range(shards)) - self.done()):
            raise ValueError(f"{self.path}: shards {missing} are missing; run the stage again, done shards are kept")
        records = [_read_record(self.path, shard) for shard in range(shards)]
        ids = [clip for record in records for clip in record.ids]
        if len(ids) != clips or any(len(record.ids) != self.shard_clips for record in records[:-1]):
            raise ValueError(f"{self.path}: {len(ids)} clips in {shards} shards of {self.shard_clips}, but {clips} were promised")
        if len(set(ids)) != len(ids):
            raise ValueError(f"{self.path}: {len(ids) - len(set(ids))} clip ids occur twice")
        _write_metadata(self.path, self.arrays, self.shard_clips, clips)
        write_json(self.path / SPEC, {**read_json(self.path / SPEC), "clips": clips})
        self.__init__(self.path)  # type: ignore[misc]

    def load(self, rows: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
        """Raw arrays of these rows, stacked."""
        if wrong := [row for row in rows if not 0 <= row < len(self)]:
            raise IndexError(f"{self.path}: rows {wrong} are outside 0..{len(self) - 1}")
        return {name: np.stack([self._readers[name].read(row) for row in rows]) for name in names or self.arrays}

    def read(self, rows: Sequence[int]) -> ClipBatch:
        """Clips with frames (B, T, C, H, W) in [-1, 1] and, as their condition, their masks."""
        loaded = self.load(rows)
        frames = to_float(torch.from_numpy(loaded["frames"]).movedim(-1, 2))
        ids = tuple(self.ids[row] for row in rows)
        return ClipBatch(ids, frames, Condition(ids, torch.from_numpy(loaded["masks"])))

    def conditions(self, rows: Sequence[int]) -> Condition:
        """Masks only."""
        return Condition(tuple(self.ids[row] for row in rows), torch.from_numpy(self.load(rows, ["masks"])["masks"]))

    def subset(self, rows: Sequence[int]) -> Subset:
        return Subset(self, rows)


class Subset:
    """Some rows of a store, as a `models.clip.ClipSource`."""

    def __init__(self, store: ClipStore, rows: Sequence[int]) -> None:
        self._store, self._rows = store, list(rows)
        self.ids = tuple(store.ids[row] for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        return self._store.read([self._rows[row] for row in rows])


def _shard_key(shard: int, dims: int) -> str:
    return "/".join(["c", str(shard), *["0"] * dims])


def _array(store: Any, name: str, spec: ArraySpec, shard_clips: int, clips: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store, name=name, shape=(clips, *spec.shape), dtype=spec.dtype, chunks=(1, *spec.shape), shards=(shard_clips, *spec.shape),
        compressors=[ZstdCodec(level=3), Crc32cCodec()], fill_value=0,
        config={"write_empty_chunks": True},  # or a black clip would leave no trace
    )


def _encode(values: NDArray[Any], spec: ArraySpec, shard_clips: int) -> bytes:
    """The shard's bytes as zarr itself writes them; rows past the end are left out of the shard's index."""
    memory: dict[str, Any] = {}
    array = _array(MemoryStore(memory), "one", spec, shard_clips, len(values))
    array[:] = values
    return bytes(memory[f"one/{_shard_key(0, len(spec.shape))}"].to_bytes())


def _write_metadata(path: Path, arrays: dict[str, ArraySpec], shard_clips: int, clips: int) -> None:
    memory: dict[str, Any] = {}
    store = MemoryStore(memory)
    zarr.create_group(store)
    for name, spec in sorted(arrays.items()):
        _array(store, name, spec, shard_clips, clips)
    for key, value in sorted(memory.items()):
        atomic_write(path / key, bytes(value.to_bytes()))


def _read_record(path: Path, shard: int) -> ShardRecord:
    file = path / COMMITS / f"{shard:05d}.json"
    if not file.exists():
        raise ValueError(f"{file}: shard {shard} has no commit record; run the stage again")
    try:
        return ShardRecord(**read_json(file))
    except TypeError as error:
        raise ValueError(f"{file}: not a commit record ({error}); delete it and run the stage again") from None


def verify(path: Path) -> list[str]:
    """Recompute every checksum; one line per problem with the file in it, [] when whole."""
    problems: list[str] = []
    try:
        store = ClipStore.open(path)
    except (ValueError, KeyError, TypeError, OSError) as error:
        return [f"{error}"]
    expected = {SPEC, "zarr.json", *(f"{name}/zarr.json" for name in store.arrays)}
    for record in store._records:
        expected |= {f"{COMMITS}/{record.shard:05d}.json", *record.files}
        if record.fingerprint != store.fingerprint:
            problems.append(f"{COMMITS}/{record.shard:05d}.json: another fingerprint than the store's")
        for name, digest in sorted(record.files.items()):
            if not (path / name).is_file():
                problems.append(f"{name}: missing")
            elif file_digest(path / name) != digest:
                problems.append(f"{name}: checksum differs from the commit record")
        first = record.shard * store.shard_clips
        for place, (clip, digest) in enumerate(zip(record.ids, record.digests, strict=True)):
            try:
                arrays = {name: values[0] for name, values in store.load([first + place]).items()}
            except (ValueError, RuntimeError) as error:
                problems.append(f"clip {clip}: {error}")
                continue
            if clip_digest(arrays) != digest:
                problems.append(f"clip {clip}: other pixels than when it was written")
    if len(set(store.ids)) != len(store.ids):
        problems.append("clip ids occur twice")
    problems += _metadata_problems(store)
    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    problems += [f"{name}: belongs to no shard" for name in sorted(there - expected)]
    return problems


def _metadata_problems(store: ClipStore) -> list[str]:
    """zarr.json must be byte for byte what this store's layout gives."""
    memory: dict[str, Any] = {}
    memory_store = MemoryStore(memory)
    zarr.create_group(memory_store)
    for name, spec in sorted(store.arrays.items()):
        _array(memory_store, name, spec, store.shard_clips, len(store))
    return [
        f"{key}: not this store's metadata"
        for key, value in sorted(memory.items())
        if not (store.path / key).is_file() or (store.path / key).read_bytes() != bytes(value.to_bytes())
    ]
