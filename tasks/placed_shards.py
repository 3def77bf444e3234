"""Clips out of shards that may be anywhere: files of this machine as `tasks.shard_reader` reads them, others by ranges.

Of a shard on a remote only its index is fetched, once, and then the bytes of the clips asked for, many at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from tasks.shard_reader import CHECKSUM, Index, ShardReader, chunk_range, decode, footer_bytes, read_index

Place = tuple[AbstractFileSystem, str]
"""A file: where it is, and its path there."""
Range = tuple[Place, int, int | None]
"""First byte, counted from the end if negative, and the one after the last; None for the end."""


class PlacedShards(ShardReader):
    """Clips of one array by row. Safe to share between threads, and with processes that are forked.

    Args:
        place: where the file of this name is.
        folder: name of the array's folder.
        shard_clips, shape, dtype: as for `ShardReader`.
    """

    def __init__(
        self, place: Callable[[str], Place], folder: str, shard_clips: int, shape: tuple[int, ...], dtype: str
    ) -> None:
        super().__init__(Path(folder), shard_clips, shape, dtype)
        self._place = place
        self._places: dict[int, Place] = {}
        self._indexes: dict[int, Index] = {}

    def path(self, shard: int) -> Path:
        return Path(self._placed(shard)[1])

    def read(self, rows: list[int]) -> NDArray[Any]:
        """(len(rows), *shape) of the array's dtype; the caller's own.

        Raises:
            ValueError: naming the file, if a clip is missing, cut off or its checksum differs.
            OSError: if a remote cannot be read.
        """
        out = np.empty((len(rows), *self._shape), self._dtype)
        wanted = [divmod(row, self._shard_clips) for row in rows]
        distant = [number for number, (shard, _) in enumerate(wanted) if not self._is_here(shard)]
        self._fetch_indexes({wanted[number][0] for number in distant})
        ranges = [(self._placed(shard), *chunk_range(self._indexes[shard], place, self._placed(shard)[1]))
                  for shard, place in map(wanted.__getitem__, distant)]
        fetched = dict(zip(distant, fetch(ranges), strict=True))
        for number, (shard, place) in enumerate(wanted):
            if (chunk := fetched.pop(number, None)) is None:
                self._shard(shard).read_into(place, out[number])
            else:
                decode(chunk[:-CHECKSUM], chunk[-CHECKSUM:], out[number], place, self._placed(shard)[1])
        return out

    def _fetch_indexes(self, shards: set[int]) -> None:
        """Have the indexes of these shards of a remote."""
        missing = sorted(shards - set(self._indexes))
        footers = fetch([(self._placed(shard), -footer_bytes(self._shard_clips), None) for shard in missing])
        for shard, footer in zip(missing, footers, strict=True):
            self._indexes[shard] = read_index(footer, self._shard_clips, self._placed(shard)[1])

    def _is_here(self, shard: int) -> bool:
        return isinstance(self._placed(shard)[0], LocalFileSystem)

    def _placed(self, shard: int) -> Place:
        if shard not in self._places:
            self._places[shard] = self._place(super().path(shard).as_posix())
        return self._places[shard]


def fetch(ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of every range, in this order; those of one filesystem all at once, where it can do that."""
    found: dict[int, bytes] = {}
    for system in {id(place[0]): place[0] for place, _, _ in ranges}.values():
        numbers = [number for number, (place, _, _) in enumerate(ranges) if place[0] is system]
        paths, starts, ends = zip(*((ranges[number][0][1], *ranges[number][1:]) for number in numbers), strict=True)
        parts = _alive(system).cat_ranges(list(paths), list(starts), list(ends), on_error="raise")
        found |= dict(zip(numbers, parts, strict=True))
    return [found[number] for number in range(len(ranges))]


def _alive(system: AbstractFileSystem) -> AbstractFileSystem:
    """An asynchronous filesystem does not survive a fork (a DataLoader's worker): another one with the same options."""
    if getattr(system, "_pid", os.getpid()) == os.getpid():
        return system
    return type(system)(*system.storage_args, **system.storage_options)
