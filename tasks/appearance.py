"""Does a synthetic set look and move like the real training clips?

A network can be fooled by clips that flicker or stand still; these numbers cannot. They say nothing of anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.clip import ClipSource, spread
from tasks.metrics.appearance import MEASURES, appearance
from tasks.store import ClipStore
from tasks.tables import write_json
from tasks.train import training_clips

READ_TOGETHER, MEASURED = 32, 256
"""Clips in memory at a time; real clips, spread over the training split, that are measured at most."""


def look(prepared: Path, clips: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Write `appearance.json` of a set: {value, real, low, high, inside, what} of every measure.

    `value` and `real` are means over clips; `low` to `high` is where 90 % of the real training clips lie, and `inside` the
    share of synthetic clips that lie there too.
    """
    real, _ = training_clips(prepared)
    made = ClipStore.open(clips / "clips.zarr")
    of_real = _measure(real, spread(len(real), MEASURED))
    of_set = _measure(made, range(len(made)))
    found = {}
    for name, what in MEASURES.items():
        low, high = of_real[name].quantile(0.05), of_real[name].quantile(0.95)
        inside = ((of_set[name] >= low) & (of_set[name] <= high)).double().mean()
        values = {"value": of_set[name].mean(), "real": of_real[name].mean(), "low": low, "high": high, "inside": inside}
        found[name] = {**{key: float(value) for key, value in values.items()}, "what": what}
    write_json(out / "appearance.json", found)
    return found


def _measure(clips: ClipSource, rows: Sequence[int]) -> dict[str, Tensor]:
    parts = [appearance(clips.read(rows[start : start + READ_TOGETHER]).frames)
             for start in range(0, len(rows), READ_TOGETHER)]
    return {name: torch.cat([part[name] for part in parts]).double() for name in MEASURES}
