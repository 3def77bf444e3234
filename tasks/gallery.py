"""Which clips a report shows, as moving pictures: real beside mask beside synthetic, kept and dropped, set beside set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from models.clip import UNKNOWN
from tasks.account import FilterAccount
from tasks.condition import STORE
from tasks.params import Params
from tasks.pictures import Pixels, data_uri, moved, painted, panels, small_webp, tile, webp
from tasks.records import ConditionRecord, Decision, ProvenanceRecord, accepted
from tasks.store import ClipStore
from tasks.tables import read_table

T = TypeVar("T")
SHOWN = 8
"""Clips a grid: enough to judge, few enough for a page that is sent around; `tasks.browse` has all."""


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

    @cached_property
    def masked(self) -> bool:
        """Whether masks were asked for; else it was whole clips, of which motion is what can be shown beside."""
        return bool((self.store.load([0])["masks"] != UNKNOWN).any())

    @property
    def columns(self) -> tuple[str, str, str]:
        """What stands beside the source clip in `side_by_side`."""
        return ("mask", "synthetic", "outlined") if self.masked else ("synthetic", "source's motion", "synthetic motion")

    def row(self, clip_id: str) -> int:
        return self.store.ids.index(clip_id)


def read_set(name: str, clips: Path, decisions: Path) -> SyntheticSet | None:
    """None when the set was not sampled; with no decisions, every clip counts as kept."""
    if not (clips / name / "provenance.parquet").exists():
        return None
    provenance = read_table(clips / name / "provenance.parquet", ProvenanceRecord)
    table = decisions / name / "decisions.parquet"
    judged = read_table(table, Decision) if table.exists() else []
    kept = accepted([record.clip_id for record in provenance], judged)
    return SyntheticSet(name, ClipStore.open(clips / name / "clips.zarr"), provenance, judged, kept)


def side_by_side(shown: SyntheticSet, prepared: Path, conditions: Path) -> list[Picture]:
    """Kept clips of different conditions, each as four panels: real clip, mask asked for, synthetic clip, both together; or,
    where no masks were asked for, the real clip, the synthetic one, and the motion of both.

    The real clip is the first of those that the condition was made from.
    """
    bank = {record.condition_id: record for record in read_table(conditions / "conditions.parquet", ConditionRecord)}
    pictures = []
    rows = _of_different_conditions(shown, SHOWN)
    for row, four in zip(rows, panes(shown, rows, prepared, conditions), strict=True):
        record = shown.provenance[row]
        number = len(bank[record.condition_id].clips)
        mixture = f"; the clip on the left is the first of {number} that the mask was made from" if number > 1 else ""
        asked = "; ".join(filter(None, [record.label, record.text]))
        pictures.append(picture(
            tile(four, columns=4),
            f"source clip, {', '.join(shown.columns)} of clip {record.clip_id[:8]}",
            f"clip {record.clip_id[:8]}" + (f": {asked}" if asked else ""),
            f"condition {record.condition_id[:8]}, draw {record.draw}; from patient {', '.join(record.patients)}{mixture}",
        ))
    return pictures


def poster(shown: SyntheticSet, prepared: Path, conditions: Path) -> bytes:
    """Animated WebP for a README: up to six columns of source clip, its mask or motion, and synthetic clip; empty when no clip
    was kept."""
    columns = list(panes(shown, _of_different_conditions(shown, 6), prepared, conditions, most=4))
    if not columns:
        return b""
    rows = np.stack(columns, 1)[[0, 1, 2] if shown.masked else [0, 2, 1]]
    return webp(tile(rows.reshape(-1, *rows.shape[2:]), columns=len(columns)))


def dropped(shown: SyntheticSet, filters: Sequence[FilterAccount]) -> list[Picture]:
    """For each filter, dropped clips from its lowest to its highest score, with the reason."""
    losing = [one for one in filters if one.dropped]
    pictures = []
    for one in losing:
        gone = sorted((each for each in one.decisions if not each.keep), key=lambda each: (each.score, each.clip_id))
        for decision in spread(gone, max(2, SHOWN // len(losing))):
            number = f"clip {decision.clip_id[:8]}: score {decision.score:.4g}, threshold {decision.threshold}"
            lines = (f"dropped by {one.name}", number, decision.reason)
            pictures.append(_pair(shown, shown.row(decision.clip_id), "dropped", lines))
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
        film = tile(panels(one.store.load(range(count))["frames"], most=1), columns=count, gap=1)
        alt, line = f"the first {count} clips of set {name}", f"{len(one.store)} sampled, {len(one.kept)} kept"
        found.append((name, picture(film, alt, name, line)))
    return found


def picture(film: Pixels, alt: str, *lines: str) -> Picture:
    """(T, H, W, 3) as a `Picture`; the still is the middle frame."""
    middle = len(film) // 2
    still = small_webp(film[middle : middle + 1])
    return Picture(data_uri(small_webp(film), "image/webp"), data_uri(still, "image/webp"), alt, tuple(lines))


def stored(path: Path, alt: str, *lines: str) -> Picture:
    """A moving picture that an earlier stage wrote, as it is; the still is its middle frame."""
    with Image.open(path) as image:
        image.seek(getattr(image, "n_frames", 1) // 2)
        still = small_webp(np.asarray(image.convert("RGB"))[None])
    return Picture(data_uri(path.read_bytes(), "image/webp"), data_uri(still, "image/webp"), alt, tuple(lines))


def spread(items: Sequence[T], number: int) -> list[T]:
    """At most `number` items, evenly from first to last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int))
    return [items[place] for place in places]


def _of_different_conditions(shown: SyntheticSet, number: int) -> list[int]:
    """The first kept clip of each condition, thinned out evenly."""
    first = {shown.provenance[row].condition_id: row for row in reversed(shown.kept)}
    return spread(sorted(first.values()), number)


def panes(shown: SyntheticSet, rows: Sequence[int], prepared: Path, conditions: Path, most: int = 1) -> Iterator[Pixels]:
    """(4, T, h, w, 3) for each clip: source, mask, synthetic, synthetic with outlines; an outside still is its own source.

    Where no masks were asked for: source, synthetic and the motion of both, enlarged `most` times at most; grey ones first, or
    a lossy picture has the motion's colours in them. Outlines always are, or they would hide what they go around.
    """
    bank = {record.condition_id: record for record in read_table(conditions / "conditions.parquet", ConditionRecord)}
    source, order = ClipStore.open(prepared / "clips.zarr"), list(bank)
    place = {clip_id: row for row, clip_id in enumerate(source.ids)}
    for row in rows:
        condition = bank[shown.provenance[row].condition_id]
        if condition.clips:
            origin = source.load([place[condition.clips[0]]])["frames"]
        else:
            origin = ClipStore.open(conditions / STORE).load([order.index(condition.condition_id)])["frames"]
        made = shown.store.load([row])
        frames, masks = made["frames"], made["masks"]
        if not shown.masked:
            yield np.concatenate([show(clip, most=most) for show in (panels, moved) for clip in (origin, frames)])
            continue
        yield np.concatenate([panels(origin), painted(masks), panels(frames), panels(frames, masks)])


def _pair(shown: SyntheticSet, row: int, word: str, lines: tuple[str, ...]) -> Picture:
    """The clip, and the clip with the outlines of the mask that was asked for, if there was one."""
    arrays = shown.store.load([row])
    alt = f"{word} clip {shown.provenance[row].clip_id[:8]}"
    if not shown.masked:
        return picture(panels(arrays["frames"], most=1)[0], alt, *lines)
    film = tile(np.concatenate([panels(arrays["frames"]), panels(arrays["frames"], arrays["masks"])]), columns=2)
    return picture(film, f"{alt}, plain and with the outlined mask", *lines)
