"""Which clips a report shows, as moving pictures: real beside mask beside synthetic, kept and dropped, set beside set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.account import FilterAccount, accepted
from tasks.params import Params
from tasks.pictures import Pixels, data_uri, painted, panels, png, tile, webp
from tasks.records import ConditionRecord, Decision, ProvenanceRecord
from tasks.store import ClipStore
from tasks.tables import read_table

T = TypeVar("T")
SHOWN = 12
"""Clips a grid: enough to judge, few enough for a page that is sent around."""


@dataclass(frozen=True)
class Picture:
    """A moving picture and the still that stands for it where motion is not wanted; `lines` go below, the first in bold."""

    moving: str
    still: str
    alt: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class SyntheticSet:
    """One synthetic set with its decisions; `kept` are the rows that no filter dropped."""

    name: str
    store: ClipStore
    provenance: list[ProvenanceRecord]
    decisions: list[Decision]
    kept: list[int]

    def row(self, clip_id: str) -> int:
        return self.store.ids.index(clip_id)


def read_set(name: str, clips: Path, decisions: Path) -> SyntheticSet | None:
    """None when the set was not sampled; with no decisions, every clip counts as kept."""
    if not (clips / name / "provenance.parquet").exists():
        return None
    provenance = read_table(clips / name / "provenance.parquet", ProvenanceRecord)
    table = decisions / name / "decisions.parquet"
    judged = read_table(table, Decision) if table.exists() else []
    return SyntheticSet(name, ClipStore.open(clips / name / "clips.zarr"), provenance, judged, accepted(provenance, judged))


def side_by_side(shown: SyntheticSet, prepared: Path, conditions: Path) -> list[Picture]:
    """Kept clips of different conditions, each as four panels: real clip, mask asked for, synthetic clip, both together.

    The real clip is the first of those that the condition was made from.
    """
    bank = {record.condition_id: record for record in read_table(conditions / "conditions.parquet", ConditionRecord)}
    real = ClipStore.open(prepared / "clips.zarr")
    place = {clip_id: row for row, clip_id in enumerate(real.ids)}
    first = {shown.provenance[row].condition_id: row for row in reversed(shown.kept)}
    pictures = []
    for row in spread(sorted(first.values()), SHOWN):
        record = shown.provenance[row]
        sources = bank[record.condition_id].clips
        arrays = shown.store.load([row])
        origin = real.load([place[sources[0]]])["frames"]
        made, masks = arrays["frames"], arrays["masks"]
        film = tile(np.concatenate([panels(origin), painted(masks), panels(made), panels(made, masks)]), columns=4)
        mixture = f", the first of {len(sources)} that its mask was made from" if len(sources) > 1 else ""
        who = ", ".join(record.patients)
        pictures.append(picture(film, f"real clip, mask, synthetic clip {record.clip_id[:8]}, and synthetic clip with outlined mask",
                                f"clip {record.clip_id[:8]}", f"condition {record.condition_id[:8]}, draw {record.draw}; real clip of patient {who}{mixture}"))
    return pictures


def dropped(shown: SyntheticSet, filters: Sequence[FilterAccount]) -> list[Picture]:
    """For each filter, dropped clips from its lowest to its highest score, with the reason."""
    losing = [one for one in filters if one.dropped]
    pictures = []
    for one in losing:
        gone = sorted((decision for decision in one.decisions if not decision.keep), key=lambda decision: (decision.score, decision.clip_id))
        for decision in spread(gone, max(2, SHOWN // len(losing))):
            pictures.append(_pair(shown, shown.row(decision.clip_id), "dropped", (
                f"dropped by {one.name}", f"clip {decision.clip_id[:8]}: score {decision.score:.4g}, threshold {decision.threshold}", decision.reason)))
    return pictures


def kept(shown: SyntheticSet) -> list[Picture]:
    """Kept clips with the score that each filter gave them."""
    scores: dict[str, list[str]] = {}
    for decision in shown.decisions:
        scores.setdefault(decision.clip_id, []).append(f"{decision.filter} {decision.score:.4g}")
    return [
        _pair(shown, row, "kept", (f"kept: clip {clip_id[:8]}", "; ".join(scores.get(clip_id, ["no filter"]))))
        for row in spread(shown.kept, SHOWN)
        if (clip_id := shown.provenance[row].clip_id)
    ]


def sets(params: Params, clips: Path, decisions: Path) -> list[tuple[str, Picture]]:
    """The first clips of every set, unfiltered and in the plan's order, so that the same place shows the same condition."""
    found = []
    for name in params.samples:
        if (one := read_set(name, clips, decisions)) is None:
            continue
        count = min(6, len(one.store))
        film = tile(panels(one.store.load(range(count))["frames"]), columns=count)
        found.append((name, picture(film, f"the first {count} clips of set {name}", name, f"{len(one.store)} sampled, {len(one.kept)} kept")))
    return found


def picture(film: Pixels, alt: str, *lines: str) -> Picture:
    """(T, H, W, 3) as a `Picture`; the still is the middle frame."""
    return Picture(data_uri(webp(film), "image/webp"), data_uri(png(film[len(film) // 2]), "image/png"), alt, tuple(lines))


def spread(items: Sequence[T], number: int) -> list[T]:
    """At most `number` items, evenly from first to last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)) if items else []
    return [items[place] for place in places]


def _pair(shown: SyntheticSet, row: int, word: str, lines: tuple[str, ...]) -> Picture:
    """The clip, and the clip with the outlines of the mask that was asked for."""
    arrays = shown.store.load([row])
    film = tile(np.concatenate([panels(arrays["frames"]), panels(arrays["frames"], arrays["masks"])]), columns=2)
    return picture(film, f"{word} clip {shown.provenance[row].clip_id[:8]}, plain and with the outlined mask", *lines)
