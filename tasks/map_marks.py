"""A map of features as marks to be drawn: where each clip lies, whose it is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tasks.account import differences
from tasks.gallery import SyntheticSet, read_set
from tasks.params import Params
from tasks.records import ClipRecord, MapRecord
from tasks.tables import read_json, read_table

Kind = Literal["training", "held-out", "dropped", "kept"]
KINDS: tuple[Kind, ...] = ("training", "held-out", "dropped", "kept")
"""In the order in which they are drawn; each has a shape as well as a colour."""

WIDTH, HEIGHT, MARGIN = 640, 480, 12


@dataclass(frozen=True)
class Mark:
    """One clip: the middle of its mark in a picture of `WIDTH` by `HEIGHT`, and what it is in words."""

    x: float
    y: float
    clip_id: str
    words: str


@dataclass(frozen=True)
class FeatureMap:
    """One set among the real clips, in the eyes of one extractor."""

    extractor: str
    perplexity: float
    marks: dict[Kind, list[Mark]]


def read_maps(params: Params, data: Path) -> list[tuple[str, str, FeatureMap]]:
    """(set, in what it differs from the released one, its map) of every set that has one, the released one first."""
    found = []
    for name in sorted(params.samples, key=lambda name: name != params.release.source):
        one = read_set(name, data / "clips", data / "decisions")
        if one and (own := read_map(data / "control" / name, one, data / "prepared")):
            found.append((name, differences(params, name), own))
    return found


def read_map(control: Path, shown: SyntheticSet, prepared: Path) -> FeatureMap | None:
    """The map in a set's control folder; None if there is none, or it is of clips that have since been sampled anew."""
    if not (control / "map.json").exists():
        return None
    rows, facts = read_table(control / "map.parquet", MapRecord), read_json(control / "map.json")
    real = {record.clip_id: record for record in read_table(prepared / "manifest.parquet", ClipRecord)}
    made = {record.clip_id: record for record in shown.provenance}
    if any(row.clip_id not in (made if row.origin == "synthetic" else real) for row in rows):
        return None
    dropped = {one.clip_id: one.filter for one in shown.decisions if not one.keep}
    marks: dict[Kind, list[Mark]] = {kind: [] for kind in KINDS}
    for row, (x, y) in zip(rows, _fitted(rows), strict=True):
        if row.origin != "synthetic":
            kind: Kind = row.origin
            label, fate = real[row.clip_id].label, f"patient {real[row.clip_id].patient}"
        elif row.clip_id in dropped:
            kind, label, fate = "dropped", made[row.clip_id].label, f"dropped by {dropped[row.clip_id]}"
        else:
            kind, label, fate = "kept", made[row.clip_id].label, "kept"
        what = f"{row.origin} clip {row.clip_id[:8]}"
        marks[kind].append(Mark(x, y, row.clip_id, ", ".join(filter(None, [what, label, fate]))))
    return FeatureMap(facts["extractor"], facts["perplexity"], marks)


def _fitted(rows: list[MapRecord]) -> list[tuple[float, float]]:
    """Places moved and scaled into the picture, both axes by the same factor; the second axis goes up."""
    places = np.array([(row.x, -row.y) for row in rows])
    low, span = places.min(0), np.ptp(places, axis=0)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    scale = min((room[axis] / span[axis] for axis in (0, 1) if span[axis]), default=0.0)
    moved = MARGIN + (places - low) * scale + (room - span * scale) / 2
    return [(float(x), float(y)) for x, y in moved.round(1)]
