"""Contact sheets of a clip store, one a shard: every clip a strip of small frames, all strips in one still WebP.

A page moves a strip behind a window of one frame, so that one file is both the film and, where motion is not wanted, the still.
A sheet's name holds a fingerprint of its clips and of the code, so that one that is there need not be made again, and a killed
run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tasks.fingerprint import fingerprint
from tasks.pictures import panels, small_webp, strips
from tasks.store import ClipStore
from tasks.tables import atomic_write

FRAMES, SIDE = 8, 72
"""Frames of a strip, spread over the clip, and about their longer side in pixels as a page shows them."""

MOST, READ_TOGETHER = 64, 8
"""Clips of a sheet, as phones decode a picture whole and WebP ends at 16 383 pixels: a larger shard fills several. Clips in
memory at a time."""


@dataclass(frozen=True)
class Sheet:
    """One contact sheet.

    Attributes:
        number: of the sheet, from 0; that of its shard, if no shard has more than `MOST` clips.
        last: that of the store's last one.
        rows: of the store, from top to bottom.
        path: the WebP.
        frames, width, height: how many a strip has, and the pixels of one; small ones are stored as they are.
    """

    number: int
    last: int
    rows: range
    path: Path
    frames: int
    width: int
    height: int

    @property
    def zoom(self) -> int:
        """How many times a page should enlarge a frame to show it at about `SIDE`."""
        return min(4, max(1, round(SIDE / max(self.width, self.height))))


def sheets(store: ClipStore, out: Path) -> Iterator[Sheet]:
    """Every sheet of a store, made if it is not there yet; at the end, all other `.webp` files in the folder are removed."""
    shown = np.unique(np.linspace(0, store.arrays["frames"].shape[0] - 1, FRAMES).round().astype(int))
    digests, parts, current = store.digests, list(_parts(store)), set()
    for number, rows in enumerate(parts):
        mark = fingerprint("sheet", SIDE, shown.tolist(), [digests[row] for row in rows])
        path = out / f"{number:05d}-{mark[:12]}.webp"
        current.add(path)
        if (size := _size(path)) is None:
            atomic_write(path, _sheet(store, rows, shown))
            size = _size(path)
            assert size is not None  # just written
        yield Sheet(number, len(parts) - 1, rows, path, len(shown), size[0] // len(shown), size[1] // len(rows))
    for path in set(out.glob("*.webp")) - current:
        path.unlink()


def _parts(store: ClipStore) -> Iterator[range]:
    """Rows of every shard, at most `MOST` at a time."""
    for start in range(0, len(store), store.shard_clips):
        end = min(start + store.shard_clips, len(store))
        yield from (range(first, min(first + MOST, end)) for first in range(start, end, MOST))


def _sheet(store: ClipStore, rows: range, shown: NDArray[np.int64]) -> bytes:
    parts = [strips(panels(store.load(rows[start : start + READ_TOGETHER])["frames"][:, shown], side=SIDE, most=1))
             for start in range(0, len(rows), READ_TOGETHER)]
    return small_webp(np.concatenate(parts)[None])


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None if it is not there or is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (FileNotFoundError, UnidentifiedImageError):
        return None
