"""The path of one clip: what was asked for, how it was made, what filters and audit saw in it, and whether it is released."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.account import FilterAccount
from tasks.audit import audit_of
from tasks.gallery import Picture, SyntheticSet, panes, picture
from tasks.params import Params
from tasks.pictures import tile
from tasks.records import AuditRecord, ConditionRecord, Decision
from tasks.tables import read_table

ASKED = {"image": "the first frame", "motion": "the motion"}
"""Conditions of a whole clip that have no words of their own, as `use` names them."""


@dataclass(frozen=True)
class Scale:
    """A filter's score among all that it gave: places from 0, the lowest score or threshold, to 1, the highest."""

    place: float
    limits: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """One step of a path; `keep` is None where nothing was decided."""

    title: str
    lines: tuple[str, ...]
    keep: bool | None = None
    scale: Scale | None = None


@dataclass(frozen=True)
class ClipPath:
    """One clip's steps; `dropped_by` is the filter that dropped it, "" if none did."""

    clip_id: str
    label: str
    dropped_by: str
    scores: dict[str, float]
    steps: tuple[Step, ...]

    @property
    def kept(self) -> bool:
        return not self.dropped_by


class Paths:
    """The paths of a set's clips, by row.

    Args:
        conditions, audit: folders of the bank and of the set's audit, which need not be there.
        refused: whether the audit refuses the release.
    """

    def __init__(self, params: Params, shown: SyntheticSet, filters: Sequence[FilterAccount], conditions: Path, audit: Path,
                 refused: bool) -> None:
        self._params, self._shown, self._refused = params, shown, refused
        table = read_table(conditions / "conditions.parquet", ConditionRecord)
        self._bank = {record.condition_id: record for record in table}
        self._filters = list(filters)
        self._ends = {one.name: _ends(one) for one in filters}
        self._limits = {one.name: one.limits for one in filters}
        self._decisions: dict[str, list[Decision]] = {}
        for decision in shown.decisions:
            self._decisions.setdefault(decision.clip_id, []).append(decision)
        found = audit_of(audit, shown.store)
        self._threshold = found["threshold"]["value"] if found else 1.0
        self._audited = {row.clip_id: row for row in read_table(audit / "audit.parquet", AuditRecord)} if found else {}

    def of(self, row: int) -> ClipPath:
        record = self._shown.provenance[row]
        decisions = self._decisions.get(record.clip_id, [])
        dropped_by = next((one.filter for one in decisions if not one.keep), "")
        steps = (self._condition(row), self._sampling(row),
                 *(self._judged(one) for one in decisions if one.filter != "audit"), *self._compared(record.clip_id),
                 self._end(dropped_by))
        scores = {one.filter: one.score for one in decisions}
        return ClipPath(record.clip_id, record.label or "", dropped_by, scores, steps)

    def examples(self, prepared: Path, conditions: Path) -> list[tuple[ClipPath, Picture]]:
        """A kept clip and a dropped one, as far as there are any, each with its picture beside what it was made from.

        They are the middle ones; the latter of those that the last filter dropped that dropped any: they came furthest.
        """
        shown = self._shown
        rows = shown.kept[len(shown.kept) // 2 :][:1]
        losing = [one for one in self._filters if one.dropped]
        if losing:
            gone = [decision.clip_id for decision in losing[-1].decisions if not decision.keep]
            rows.append(shown.row(gone[len(gone) // 2]))
        found = []
        for one, four in zip(map(self.of, rows), panes(shown, rows, prepared, conditions), strict=True):
            alt = f"source clip, {', '.join(shown.columns)} of clip {one.clip_id[:8]}"
            found.append((one, picture(tile(four, columns=4), alt)))
        return found

    def _condition(self, row: int) -> Step:
        record = self._shown.provenance[row]
        condition = self._bank[record.condition_id]
        kind = self._params.conditions["kind"]
        use = json.loads(record.sampling).get("use")
        asked = ["a mask sequence"] if self._shown.masked else ["a still to be animated"] if kind == "stills" else []
        asked += [f"class {record.label}"] if record.label and (use is None or "label" in use) else []
        asked += [f"“{record.text}”"] if record.text and (use is None or "text" in use) else []
        asked += [words for name, words in ASKED.items() if use and name in use]
        whose = f"patient{'s' if len(condition.patients) > 1 else ''} {', '.join(condition.patients)}"
        clips = [clip_id[:8] for clip_id in condition.clips]
        source = (f"Made from training clip{'s' if len(clips) > 1 else ''} {', '.join(clips)} of {whose}." if clips
                  else f"Made from an image beside the data set, of {whose}.")
        wanted = f"Asked for: {', '.join(asked) or 'nothing in particular'}."
        return Step(f"Condition {record.condition_id[:8]}", (wanted, source))

    def _sampling(self, row: int) -> Step:
        record = self._shown.provenance[row]
        drawn = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                          for name, value in json.loads(record.draws).items())
        lines = [f"Set {self._shown.name}, draw {record.draw} of this condition, seed {record.seed}, shard "
                 f"{row // self._shown.store.shard_clips}{'; drawn for it: ' + drawn if drawn else ''}.",
                 f"Checkpoint {record.checkpoint_digest[:8]}."]
        return Step(f"Sampled by {record.generator}", tuple(lines))

    def _judged(self, decision: Decision) -> Step:
        score = f"{decision.score:.4g}" if np.isfinite(decision.score) else "none"
        line = f"Score {score}, threshold {decision.threshold}: {'kept' if decision.keep else 'dropped'} ({decision.reason})."
        return Step(f"Filter {decision.filter}", (line,), decision.keep, self._scale(decision))

    def _scale(self, decision: Decision) -> Scale | None:
        low, high = self._ends[decision.filter]
        if not np.isfinite(decision.score) or low == high:
            return None
        place, *limits = ((value - low) / (high - low) for value in (decision.score, *self._limits[decision.filter]))
        return Scale(place, tuple(limits))

    def _compared(self, clip_id: str) -> list[Step]:
        """Empty where the audit had nothing to compare the clip with."""
        row = self._audited.get(clip_id)
        if row is None or row.nearest is None or row.similarity is None:
            return []
        verdict = "a near copy" if row.near_copy else "no near copy"
        line = (f"Likest training clip {row.nearest[:8]} of patient {row.patient}: correlation {row.similarity:.3f}, "
                f"near copies from {self._threshold:.3f} on: {verdict}.")
        return [Step("Audit", (line,), None, Scale(max(0.0, row.similarity), (self._threshold,)))]

    def _end(self, dropped_by: str) -> Step:
        name = f"{self._params.release.name} {self._params.release.version}"
        if dropped_by:
            return Step("Not released", (f"Dropped by {dropped_by}. Its pixels and all decisions stay in the set.",), False)
        if self._refused:
            return Step("Not released", (f"Kept, but {name} is refused: too many of its clips are near copies.",), False)
        return Step("To be released", (f"In {name}.",), True)


def _ends(one: FilterAccount) -> tuple[float, float]:
    """Lowest and highest of all finite scores and thresholds; (0, 0) without any."""
    values = [*(decision.score for decision in one.decisions if np.isfinite(decision.score)), *one.limits]
    return (min(values), max(values)) if values else (0.0, 0.0)
