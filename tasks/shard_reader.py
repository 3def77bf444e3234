"""Random clips out of Zarr v3 shards without zarr's per-call cost.

Nine tenths of zarr's 2 ms a clip are hand-overs between threads, not decoding. The format is simple: a shard is its chunks,
then an index of (offset, length) pairs with a CRC-32C (Zarr v3 sharding codec, index at the end). This reads standard files.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

OPEN_SHARDS = 64
"""Descriptors one reader keeps; a process may have 1024 of them and there are several readers."""

CHECKSUM = 4
"""Bytes of a CRC-32C, the last of every chunk."""

Index = list[tuple[int, int]]
"""Where each clip of a shard begins, and how many bytes it has, its checksum among them."""

_ABSENT = 2**64 - 1


class ShardFile:
    """One open shard: `clips` chunks, each zstd and then CRC-32C. The descriptor closes with the last reference.

    Raises:
        ValueError: naming the file, if it is missing, its index is damaged, or its length is not what the index says.
    """

    def __init__(self, path: Path, clips: int) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such shard; run the stage that writes it again") from None
        weakref.finalize(self, os.close, self._descriptor)  # eviction may not close what another thread is reading
        length, footer_length = os.fstat(self._descriptor).st_size, footer_bytes(clips)
        self._index = read_index(os.pread(self._descriptor, footer_length, max(0, length - footer_length)), clips, path)
        if sum(size for start, size in self._index if start != _ABSENT) + footer_length != length:
            raise ValueError(f"{path}: is {length} bytes long, which its index contradicts; run the stage that writes it again")

    def read_into(self, place: int, out: NDArray[Any]) -> None:
        """Decode the clip at this place of the shard into `out`, C-contiguous and of the clip's size."""
        start, end = chunk_range(self._index, place, self.path)
        chunk = os.pread(self._descriptor, end - start - CHECKSUM, start)  # keeps no file position, so threads need no lock
        decode(chunk, os.pread(self._descriptor, CHECKSUM, end - CHECKSUM), out, place, self.path)


def footer_bytes(clips: int) -> int:
    """How long the index at the end of a shard of so many clips is."""
    return 16 * clips + CHECKSUM


def read_index(footer: bytes, clips: int, where: object) -> Index:
    """The index in a shard's last bytes; ValueError naming `where` if it is damaged or cut off."""
    if len(footer) < footer_bytes(clips) or not _intact(footer[:-CHECKSUM], footer[-CHECKSUM:]):
        raise ValueError(f"{where}: the shard's index is damaged or cut off; run the stage that writes it again")
    index = np.frombuffer(footer[:-CHECKSUM], "<u8").reshape(clips, 2)
    return [(int(start), int(size)) for start, size in index]


def chunk_range(index: Index, place: int, where: object) -> tuple[int, int]:
    """First byte, and the one after the last, of the clip at this place with its checksum; ValueError if there is none."""
    start, size = index[place]
    if start == _ABSENT or size < CHECKSUM:
        raise ValueError(f"{where}: holds no clip at place {place}; run the stage that writes it again")
    return start, start + size


def decode(chunk: bytes, checksum: bytes, out: NDArray[Any], place: int, where: object) -> None:
    """Decode one clip into `out`; ValueError if its checksum or its size is another."""
    if not _intact(chunk, checksum):
        raise ValueError(f"{where}: checksum of the clip at place {place} differs; run the stage that writes it again")
    decoded = np.frombuffer(decompress(chunk), out.dtype)
    if decoded.size != out.size:
        raise ValueError(f"{where}: clip at place {place} has {decoded.size} values, not {out.size}")
    out[...] = decoded.reshape(out.shape)


class ShardReader:
    """Clips of one array by row. At most `OPEN_SHARDS` files stay open; safe to share between threads.

    Args:
        folder: the array's folder; its chunk keys are separated by dots.
        shard_clips: clips a full shard holds.
        shape, dtype: of one clip.
    """

    def __init__(self, folder: Path, shard_clips: int, shape: tuple[int, ...], dtype: str) -> None:
        self._folder, self._shard_clips, self._shape = folder, shard_clips, shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._open: OrderedDict[int, ShardFile] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, shard: int) -> Path:
        """The file zarr keeps this shard in."""
        return self._folder / ".".join(["c", str(shard), *["0"] * len(self._shape)])

    def read(self, rows: list[int]) -> NDArray[Any]:
        """(len(rows), *shape) of the array's dtype; the caller's own.

        Raises:
            ValueError: naming the file, if a clip is missing, cut off or its checksum differs.
        """
        out = np.empty((len(rows), *self._shape), self._dtype)
        for number, row in enumerate(rows):
            shard, place = divmod(row, self._shard_clips)
            self._shard(shard).read_into(place, out[number])
        return out

    def forget(self, shard: int) -> None:
        """The shard's file was replaced: open it anew at the next read."""
        with self._lock:
            self._open.pop(shard, None)

    def check(self, shard: int) -> None:
        """Raise ValueError unless the shard's file is there, with a sound index and the length that goes with it."""
        ShardFile(self.path(shard), self._shard_clips)

    def _shard(self, shard: int) -> ShardFile:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = ShardFile(self.path(shard), self._shard_clips)
                if len(self._open) > OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
            return self._open[shard]


def _intact(content: bytes, checksum: bytes) -> bool:
    """Whether these are the little-endian bytes of the content's CRC-32C."""
    return bool(google_crc32c.value(content) == int.from_bytes(checksum, "little"))
