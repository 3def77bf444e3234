"""Random clips out of Zarr v3 shards without zarr's per-call cost.

Nine tenths of zarr's 2 ms a clip are hand-overs between threads. The file format is simple: a shard is its chunks, then an
index of (offset, length) pairs and a CRC-32C. This reads standard files; zarr reads them too.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

ABSENT = 2**64 - 1
OPEN_SHARDS = 64


class ShardReader:
    """One array of a store: clips of `shape` and `dtype`, `shard_clips` to a shard, zstd and CRC-32C per chunk."""

    def __init__(self, folder: Path, shard_clips: int, shape: tuple[int, ...], dtype: str) -> None:
        self.folder, self.shard_clips, self.shape, self.dtype = folder, shard_clips, shape, np.dtype(dtype)
        self._open: OrderedDict[int, tuple[int, NDArray[np.uint64]]] = OrderedDict()
        self._lock = threading.Lock()

    def __del__(self) -> None:
        for descriptor, _ in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def file(self, shard: int) -> Path:
        """Where zarr keeps this shard."""
        return self.folder.joinpath("c", str(shard), *["0"] * len(self.shape))

    def read(self, row: int) -> NDArray[Any]:
        """One clip; the array is the caller's own.

        Raises:
            ValueError: naming the file, if the clip is missing, truncated or its checksum differs.
        """
        shard, place = divmod(row, self.shard_clips)
        with self._lock:  # a descriptor must not be closed between look-up and read
            descriptor, index = self._shard(shard)
            offset, length = (int(number) for number in index[place])
            stored = b"" if offset == ABSENT else os.pread(descriptor, length, offset)
        if offset == ABSENT or len(stored) != length or length < 4:
            raise ValueError(f"{self.file(shard)}: clip {row} is not there or cut off; run `cinefab verify`")
        body = stored[:-4]
        if google_crc32c.value(body) != int.from_bytes(stored[-4:], "little"):
            raise ValueError(f"{self.file(shard)}: checksum of clip {row} differs; run `cinefab verify`")
        clip = np.empty(self.shape, self.dtype)
        decompress(body, clip)
        return clip

    def _shard(self, shard: int) -> tuple[int, NDArray[np.uint64]]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        try:
            descriptor = os.open(self.file(shard), os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError(f"{self.file(shard)}: shard is missing; run the stage that writes it again") from None
        size = 16 * self.shard_clips + 4
        footer = os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size))
        if len(footer) != size or google_crc32c.value(footer[:-4]) != int.from_bytes(footer[-4:], "little"):
            os.close(descriptor)
            raise ValueError(f"{self.file(shard)}: the shard's index is broken; run `cinefab verify`")
        self._open[shard] = descriptor, np.frombuffer(footer[:-4], "<u8").reshape(-1, 2)
        if len(self._open) > OPEN_SHARDS:
            _, (oldest, _) = self._open.popitem(last=False)
            os.close(oldest)
        return self._open[shard]
