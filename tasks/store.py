"""The clip store: Zarr v3, one chunk a clip, one shard one unit of work and one writer.

A shard is encoded by zarr in memory, written whole under a temporary name, synced and renamed; then its commit record is
written the same way. A shard without a valid record does not exist. Zarr alone promises less: a missing shard reads as
zeros, a flipped byte passes, nothing is synced (all measured).

    clips.zarr/zarr.json             layout, fingerprint and, once finished, length and digest, as the group's attributes
    clips.zarr/frames/zarr.json      an array as zarr describes it; its length is 0 until the store is finished
    clips.zarr/frames/c.17.0.0.0.0   shard 17
    clips.zarr/commits/00017.json    its commit record, a `tasks.records.ShardRecord` with a checksum
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from fsspec import AbstractFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import FsspecStore, MemoryStore

from models.clip import ClipBatch, Condition, clip_batch
from tasks import commits
from tasks.records import ShardRecord
from tasks.shard_reader import ShardReader
from tasks.tables import PARTIAL, atomic_write, checksum_of, read_json, stays_below, sync

Arrays = Mapping[str, NDArray[Any]]
PlainArray = zarr.Array[Any]
METADATA = "zarr.json"


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store, as one clip sees it.

    Attributes:
        shape: of one clip, e.g. (T, H, W, C) for "frames" and (T, H, W) for "masks".
        dtype: name of a NumPy integer, float or bool type, e.g. "uint8".
    """

    shape: tuple[int, ...]
    dtype: str


def clip_digest(arrays: Arrays) -> str:
    """blake2b (32 hex digits) of one clip: name, dtype, shape and bytes of each of its arrays, in the order of names."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], np.dtype(arrays[name].dtype).newbyteorder("<"))
        digest.update(json.dumps([name, values.dtype.str, values.shape]).encode())
        digest.update(values.data)
    return digest.hexdigest()


def store_digest(arrays: Mapping[str, ArraySpec], ids: Sequence[str], digests: Sequence[str]) -> str:
    """blake2b (32 hex digits) of layout, ids and clip digests, the arrays in the order of their names."""
    layout = [[name, arrays[name].shape, arrays[name].dtype] for name in sorted(arrays)]
    return hashlib.blake2b(json.dumps([layout, ids, digests]).encode(), digest_size=16).hexdigest()


class ClipStore:
    """Clips by row; a `models.clip.ClipSource` once it is finished. `create`, `resume` and `open` make one.

    Attributes:
        path: the group's folder.
        arrays: layout by name.
        shard_clips: clips a full shard holds; row r lies in shard r // shard_clips.
        fingerprint: what the shards are made from; a record with another one does not count.
    """

    def __init__(self, path: Path, layout: Mapping[str, Any]) -> None:
        self.path = path
        self.arrays = {name: ArraySpec(tuple(one["shape"]), one["dtype"]) for name, one in sorted(layout["arrays"].items())}
        self.shard_clips: int = layout["shard_clips"]
        self.fingerprint: str = layout["fingerprint"]
        self._clips: int | None = layout["clips"]
        self._readers = {
            name: ShardReader(path / name, self.shard_clips, spec.shape, spec.dtype) for name, spec in self.arrays.items()
        }
        self._records: dict[int, ShardRecord] = {}
        self._all_ids: tuple[str, ...] | None = None

    @classmethod
    def create(cls, path: Path, arrays: Mapping[str, ArraySpec], shard_clips: int, fingerprint: str) -> ClipStore:
        """Open a store for writing: shards of this layout and fingerprint are kept, all others removed.

        Call it once, before any writer starts: it also sweeps the temporary files of killed ones.

        Raises:
            ValueError: for an impossible layout, or if the folder holds something that is not a store.
        """
        if shard_clips < 1 or not arrays or commits.FOLDER in arrays:
            raise ValueError(f"{path}: arrays {sorted(arrays)}, shard_clips {shard_clips}; needs an array and shard_clips >= 1")
        shapes = {name: {"shape": list(spec.shape), "dtype": np.dtype(spec.dtype).name} for name, spec in arrays.items()}
        layout = {"arrays": dict(sorted(shapes.items())), "shard_clips": shard_clips, "fingerprint": fingerprint}
        there = _layout(path)
        if there is None or any(there.get(key) != value for key, value in layout.items()):
            _wipe(path)
            there = {**layout, "clips": None, "digest": None}
        for name, content in metadata_files(there).items():
            _put(path / name, content)
        _sweep(path)
        return cls(path, there)

    @classmethod
    def resume(cls, path: Path, fingerprint: str) -> ClipStore:
        """A store that `create` opened, for one more writer of its shards.

        Raises:
            ValueError: if there is none, or it is being written for another fingerprint.
        """
        store = cls(path, read_layout(path))
        if store.fingerprint != fingerprint:
            raise ValueError(f"{path}: is written for fingerprint {store.fingerprint}, not {fingerprint}; run its stage again")
        return store

    @classmethod
    def open(cls, path: Path) -> ClipStore:
        """A finished store, to be read.

        Raises:
            ValueError: if there is none, it is not finished, or a commit record is missing or damaged.
        """
        store = cls(path, read_layout(path))
        if store._clips is None:
            raise ValueError(f"{path}: is not finished; run its stage again, the shards that are done are kept")
        _ = store.ids  # reads every record
        return store

    @property
    def ids(self) -> tuple[str, ...]:
        """Clip ids in row order; only a finished store has them all."""
        if self._all_ids is None:
            self._all_ids = tuple(clip for record in self._finished_records() for clip in record.ids)
        return self._all_ids

    @property
    def digests(self) -> tuple[str, ...]:
        """`clip_digest` of every clip, in row order."""
        return tuple(digest for record in self._finished_records() for digest in record.digests)

    @property
    def digest(self) -> str:
        """`store_digest` of this store; the same whatever the shards' size and fingerprint."""
        return store_digest(self.arrays, self.ids, self.digests)

    def __len__(self) -> int:
        return len(self.ids)

    def done(self) -> set[int]:
        """Shards that need not be written again: a whole record of this fingerprint, files as long as their index says."""
        return {shard for shard in commits.recorded_shards(self.path) if self.has(shard)}

    def write_shard(self, shard: int, ids: Sequence[str], arrays: Arrays) -> ShardRecord:
        """Commit one shard, whole. All shards but the last are full. Writers of different shards do not disturb each other.

        Args:
            shard: its number, from 0.
            ids: one a clip.
            arrays: (len(ids), *shape) by name, of the store's dtypes.

        Raises:
            ValueError: if number, names, shapes or dtypes are not the store's, or an id occurs twice.
        """
        self._check_shard(shard, ids, arrays)
        names = self._names(shard)
        contents = {file: _encode(arrays[name], self.arrays[name], self.shard_clips) for file, name in names.items()}
        digests = [clip_digest({name: arrays[name][row] for name in arrays}) for row in range(len(ids))]
        return self._commit(ShardRecord(shard, self.fingerprint, list(ids), digests, _digests(contents)), contents)

    def adopt(self, record: ShardRecord, contents: Mapping[str, bytes]) -> None:
        """Commit a shard that another store of this layout and fingerprint has: its record, and its files' bytes by name.

        Raises:
            ValueError: if the bytes are not those of the record, or it is of another store.
        """
        ours = record.fingerprint == self.fingerprint and set(record.files) == set(self._names(record.shard))
        if not ours or _digests(contents) != record.files:
            raise ValueError(f"{self.path}: shard {record.shard} did not arrive as its record says; make it again")
        self._commit(record, contents)

    def _commit(self, record: ShardRecord, contents: Mapping[str, bytes]) -> ShardRecord:
        commits.remove_record(self.path, record.shard)  # first, so that no moment has the old record beside new files
        for name, content in contents.items():
            atomic_write(self.path / name, content)
        for reader in self._readers.values():
            reader.forget(record.shard)
        commits.write_record(self.path, record)
        self._records[record.shard], self._all_ids = record, None
        return record

    def _names(self, shard: int) -> dict[str, str]:
        """Array by name of the shard's file, inside the store."""
        return {path.relative_to(self.path).as_posix(): name for name, path in self.files(shard).items()}

    def finish(self, clips: int) -> None:
        """Give the arrays their length; from now on the store can be opened. Doing it again changes nothing.

        Raises:
            ValueError: if a shard is missing, is not full, or is one too many, or an id occurs twice.
        """
        expected = -(-clips // self.shard_clips)
        self._records.clear()
        done = self.done()
        if missing := sorted(set(range(expected)) - done):
            raise ValueError(f"{self.path}: shards {_few(missing)} of {expected} are missing; run its stage again")
        if surplus := sorted(done - set(range(expected))):
            raise ValueError(f"{self.path}: {clips} clips fill {expected} shards, but {_few(surplus)} exist; delete the store")
        owner: dict[str, int] = {}
        for shard in range(expected):
            record, size = self.record(shard), min(self.shard_clips, clips - shard * self.shard_clips)
            if len(record.ids) != size:
                raise ValueError(f"{self.path}: shard {shard} of {clips} clips must hold {size}, but holds {len(record.ids)}")
            for clip in record.ids:
                if owner.setdefault(clip, shard) != shard:
                    raise ValueError(f"{self.path}: clip id {clip} is in shards {owner[clip]} and {shard}; ids must be unique")
        _sweep(self.path)  # of workers that were killed, where others went on
        self._clips, self._all_ids = clips, None
        layout = {**read_layout(self.path), "clips": clips, "digest": self.digest}
        for name, content in reversed(metadata_files(layout).items()):  # the group's own file last: it says finished
            _put(self.path / name, content)

    def load(self, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Every array at these rows, (len(rows), *shape), in this order; repeats allowed.

        Raises:
            ValueError: for a row the store does not have, a shard without a record, or damaged bytes.
        """
        return self._load(rows, self.arrays)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        """Clips for training: frames (B, T, C, H, W) float32 in [-1, 1]; a store without masks gives all-unknown ones."""
        return clip_batch(self._ids(rows), self._load(rows, self.arrays))

    def conditions(self, rows: Sequence[int]) -> Condition:
        """Masks only, (B, T, H, W) uint8, under the ids of their clips (or of a condition bank's conditions)."""
        return Condition(self._ids(rows), torch.from_numpy(self._load(rows, ["masks"])["masks"]))

    def subset(self, rows: Sequence[int]) -> Subset:
        """These rows as a `models.clip.ClipSource` of their own."""
        return Subset(self, rows)

    def _load(self, rows: Sequence[int], names: Sequence[str] | Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        wanted = [int(row) for row in rows]
        for row in set(wanted):
            if row < 0 or row % self.shard_clips >= len(self.record(row // self.shard_clips).ids):
                raise ValueError(f"{self.path}: has no row {row}")
        return {name: self._readers[name].read(wanted) for name in names}

    def _ids(self, rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.record(row // self.shard_clips).ids[row % self.shard_clips] for row in map(int, rows))

    def record(self, shard: int) -> ShardRecord:
        """The shard's commit record, read once; ValueError if it has none that counts."""
        if shard not in self._records:
            self._records[shard] = commits.read_record(self.path, shard, self.fingerprint)
        return self._records[shard]

    def _finished_records(self) -> list[ShardRecord]:
        if self._clips is None:
            raise ValueError(f"{self.path}: is not finished; its ids are known once every shard is written")
        return [self.record(shard) for shard in range(-(-self._clips // self.shard_clips))]

    def files(self, shard: int) -> dict[str, Path]:
        """The file of this shard in each array, there or not."""
        return {name: reader.path(shard) for name, reader in self._readers.items()}

    def has(self, shard: int) -> bool:
        """Whether this shard counts; cheap, as its bytes are not hashed."""
        try:
            self.record(shard)
            for reader in self._readers.values():
                reader.check(shard)
        except ValueError:
            return False
        return True

    def _check_shard(self, shard: int, ids: Sequence[str], arrays: Arrays) -> None:
        if shard < 0 or not 0 < len(ids) <= self.shard_clips:
            raise ValueError(f"{self.path}: shard {shard} of {len(ids)} clips; count from 0, hold 1 to {self.shard_clips}")
        if len(set(ids)) != len(ids):
            raise ValueError(f"{self.path}: shard {shard} has a clip id twice; ids must be unique")
        if set(arrays) != set(self.arrays):
            raise ValueError(f"{self.path}: arrays are {sorted(arrays)}, but the store has {sorted(self.arrays)}")
        for name, spec in self.arrays.items():
            values, shape = arrays[name], (len(ids), *spec.shape)
            if values.shape != shape or values.dtype.name != spec.dtype:
                raise ValueError(f"{self.path}: {name} is {values.dtype.name} {values.shape}, but must be {spec.dtype} {shape}")


class Subset:
    """Some rows of a store, in a given order, as a `models.clip.ClipSource`."""

    def __init__(self, store: ClipStore, rows: Sequence[int]) -> None:
        self._store, self._rows = store, [int(row) for row in rows]
        ids = store.ids
        if outside := [row for row in self._rows if not 0 <= row < len(ids)]:
            raise ValueError(f"{store.path}: has no rows {_few(outside)}")
        self.ids = tuple(ids[row] for row in self._rows)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        return self._store.read([self._rows[row] for row in rows])


def plain_array(where: str, files: AbstractFileSystem | None = None) -> PlainArray:
    """An array of a finished store as zarr itself opens it, read-only.

    Args:
        where: its path or URL, or its path in `files`.
        files: a file system that zarr cannot make of a URL.
    """
    asynchronous = None if files is None else AsyncFileSystemWrapper(files, asynchronous=True)
    return zarr.open_array(where if asynchronous is None else FsspecStore(asynchronous, read_only=True, path=where), mode="r")


def _digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _encode(values: NDArray[Any], spec: ArraySpec, shard_clips: int) -> bytes:
    """The bytes zarr itself would put into the shard's file; places past the last clip are marked absent in its index."""
    memory: dict[str, Any] = {}
    array = _create_array(MemoryStore(memory), None, spec, shard_clips, len(values))
    array[:] = values
    (content,) = [value for key, value in memory.items() if key != METADATA]
    return bytes(content.to_bytes())


def metadata_files(layout: Mapping[str, Any]) -> dict[str, bytes]:
    """Every zarr.json of a store, by name inside it; the group's own first. Lengths are 0 until the store is finished."""
    memory: dict[str, Any] = {}
    store = MemoryStore(memory)
    zarr.create_group(store, attributes={**layout, "checksum": checksum_of(dict(layout))})
    zarr.create_group(store, path=commits.FOLDER)  # or zarr would warn that the folder of the records is none of its own
    for name, one in layout["arrays"].items():
        spec = ArraySpec(tuple(one["shape"]), one["dtype"])
        _create_array(store, name, spec, layout["shard_clips"], layout["clips"] or 0)
    return {name: bytes(memory[name].to_bytes()) for name in sorted(memory, key=lambda name: (name != METADATA, name))}


def _create_array(store: MemoryStore, name: str | None, spec: ArraySpec, shard_clips: int, clips: int) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        name=name,
        shape=(clips, *spec.shape),
        dtype=spec.dtype,
        chunks=(1, *spec.shape),
        shards=(shard_clips, *spec.shape),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],  # without the second a flipped bit decodes to other pixels
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},  # one folder an array, not five a shard
        config={"write_empty_chunks": True},  # or a black clip would leave no trace
    )


def _layout(path: Path) -> dict[str, Any] | None:
    """The store's layout as its group says; None if there is none or it was damaged."""
    try:
        sealed = read_json(path / METADATA)["attributes"]
        layout = {key: value for key, value in sealed.items() if key != "checksum"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return layout if sealed.get("checksum") == checksum_of(layout) and _possible(layout) else None


def _possible(layout: Mapping[str, Any]) -> bool:
    """Whether a store could say so of itself: anybody can compute a checksum."""
    try:
        arrays, clips = layout["arrays"], layout["clips"]
        numbers = [layout["shard_clips"], *([] if clips is None else [clips + 1]), *(one for spec in arrays.values()
                                                                                     for one in spec["shape"])]
        return (all(type(one) is int and 0 < one < 2**31 for one in numbers) and isinstance(layout["fingerprint"], str)
                and all(stays_below(name) and "/" not in name and name != commits.FOLDER for name in arrays)
                and all(np.dtype(spec["dtype"]).name == spec["dtype"] and np.dtype(spec["dtype"]).kind in "buif"
                        and math.prod(spec["shape"]) < 2**33 for spec in arrays.values()))
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def read_layout(path: Path) -> dict[str, Any]:
    """What a store's group says of it: arrays, shard_clips, fingerprint and, once finished, clips and digest.

    Raises:
        ValueError: if there is no store, or its zarr.json was damaged.
    """
    if (layout := _layout(path)) is None:
        raise ValueError(f"{path}: no clip store here, or its zarr.json is damaged; run the stage that writes it")
    return layout


def _wipe(path: Path) -> None:
    """Empty the store's folder: records first, so that no moment has a record without its files; its own zarr.json last."""
    if not path.exists() or not any(path.iterdir()):
        return
    if not (path / METADATA).exists():
        raise ValueError(f"{path}: holds files but no clip store; choose another folder or empty it")
    for target in sorted(path.iterdir(), key=lambda child: (child.name == METADATA, child.name != commits.FOLDER)):
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()
        sync(path)


def _sweep(path: Path) -> None:
    """Remove the temporary files of killed writers; call it while there is no other."""
    for partial in path.rglob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _put(path: Path, content: bytes) -> None:
    """Write a file unless it has this content already: hard links into DVC's cache stay links."""
    if not same_content(path, content):
        atomic_write(path, content)


def same_content(path: Path, content: bytes) -> bool:
    """Whether there is a file with exactly these bytes."""
    return path.is_file() and path.read_bytes() == content


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
