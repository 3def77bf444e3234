"""How large a clip's pixels are and how long its frames last, after it was cut and resized; and what is typical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.params import DatasetParams
from tasks.readers import Volume
from tasks.windows import fitted


@dataclass(frozen=True)
class Geometry:
    """Of one clip; None where its file does not say. `spacing_mm` is (between frames, rows, columns) as in `Volume`."""

    spacing_mm: tuple[float | None, float, float] | None
    frame_time_ms: float | None


def of_clip(volume: Volume, dataset: DatasetParams) -> Geometry:
    """That of a clip cut from the volume."""
    time = volume.frame_time_ms * dataset.stride if volume.frame_time_ms else None
    if volume.spacing_mm is None:
        return Geometry(None, time)
    step, row, column = volume.spacing_mm
    height, width = volume.frames.shape[1:3]
    rows, columns = fitted((height, width), dataset.frame_size, dataset.fit)
    return Geometry((step and step * dataset.stride, row * height / rows, column * width / columns), time)


def typical(clips: Sequence[Geometry]) -> dict[str, Any]:
    """Medians, for synthetic clips, which have no geometry of their own: {spacing_mm, frame_time_ms}, each None unless every
    clip has one."""
    spacings, times = [one.spacing_mm for one in clips], [one.frame_time_ms for one in clips]
    spacing = None
    if clips and None not in spacings:
        columns = list(zip(*(one for one in spacings if one is not None), strict=True))
        spacing = [None if None in column else round(float(np.median(column)), 6) for column in columns]
    known = [time for time in times if time is not None]
    return {"spacing_mm": spacing,
            "frame_time_ms": round(float(np.median(known)), 6) if known and len(known) == len(times) else None}
