"""Formats of an export, one module each: what other people's tools open a release with.

A module offers

- `OPENED_BY`, `LOSES`: Markdown for the card: the tool with a few lines of code, and what of the release is not in the export;
- `write(part, clips, facts, out)`: the files of one part of the release, each by `tasks.tables.atomic_path`, and a row of
  `manifest.csv` for each clip beyond what every export says of it. The columns `file` and `mask_file` name files below `out`;
- `heading(facts, rows)`: what stands above the release's own card, given every row of `manifest.csv`.

Equal releases give equal bytes: no clock, no random number, no path of this machine goes into a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Cells = dict[str, str]
"""One row of manifest.csv."""

SHOWN_PER_SECOND = 10.0
"""Frames a second of films whose release does not know how long a frame lasts."""


@dataclass(frozen=True)
class Clip:
    """One released clip.

    Attributes:
        frames: (T, H, W, C) uint8; C is 1 (grey) or 3 (RGB).
        masks: (T, H, W) uint8: 0 background, 1..K classes, 255 where nobody knows.
        known: its row of the release's manifest (`tasks.release.ReleasedClip`), and its `split`.
    """

    clip_id: str
    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    known: Mapping[str, Any]


class Format(Protocol):
    """A module of this package."""

    OPENED_BY: str
    LOSES: str

    def write(self, part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]: ...

    def heading(self, facts: Mapping[str, Any], rows: list[Cells]) -> str: ...
