"""What changed from one released version to another: which clips, why, and the metrics of both. Nothing is checked out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from tasks.account import NAMES, interval
from tasks.open_release import Release, open_release
from tasks.versions import VersionFiles

PREPARED, METRICS = "data/prepared", "data/benchmark/metrics.json"
"""What the benchmark is tested on, and what it found; `flows.layout` has the same."""

SHOWN = 8
"""Clips that the text names for one cause."""

COUNTS = {"sampled": "clips sampled", "dropped": "dropped by the filters", "clips": "released", "conditions": "conditions",
          "patients": "patients behind them"}
CHANGES = {"added": "added", "dropped": "dropped", "changed": "in both, with other pixels"}


@dataclass(frozen=True)
class ClipChange:
    """One clip that only one of the versions has, or that has other pixels in each; a row of the table.

    Attributes:
        cause: why, in words that other clips share.
        reason: what a filter said of this clip; "" if none had to do with it.
    """

    clip_id: str
    change: Literal["added", "dropped", "changed"]
    cause: str
    reason: str


@dataclass(frozen=True)
class Metric:
    """One mean of the benchmark in both versions; None where a version has none, cells as in metrics.json."""

    network: str
    arm: str
    metric: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None

    @property
    def apart(self) -> bool:
        """Whether the intervals do not overlap: more than enough for a difference, and not needed for one."""
        if self.old is None or self.new is None or None in (self.old["low"], self.new["low"]):
            return False
        return bool(self.old["high"] < self.new["low"] or self.new["high"] < self.old["low"])


@dataclass(frozen=True)
class VersionDiff:
    """Two versions side by side.

    Attributes:
        old, new: NAME@vN.
        facts: release.json of both.
        both: how many clips have the same name and pixels in both.
        changes: all other clips.
        metrics: means of the primary metric by network and arm, in the order of the newer version; [] without benchmarks.
        patients: held-out patients behind the metrics of each; None without a benchmark.
        same_test: whether the benchmarks were tested on the same clips; None where git does not say.
    """

    old: str
    new: str
    facts: tuple[dict[str, Any], dict[str, Any]]
    both: int
    changes: list[ClipChange]
    metrics: list[Metric]
    patients: tuple[int | None, int | None]
    same_test: bool | None

    def count(self, change: str) -> int:
        return sum(one.change == change for one in self.changes)

    def text(self) -> str:
        """One sentence, then the clips by reason, near copies and metrics."""
        before, after = (facts["counts"] for facts in self.facts)
        lines = [f"{self.old} has {before['clips']} clips, {self.new} {after['clips']}: {self.count('added')} added, "
                 f"{self.count('dropped')} dropped, {self.both} unchanged"
                 + (f", {n} with other pixels" if (n := self.count("changed")) else "") + "; " + self._verdict()]
        for change, word in CHANGES.items():
            for cause in dict.fromkeys(one.cause for one in self.changes if one.change == change):
                these = [one for one in self.changes if (one.change, one.cause) == (change, cause)]
                lines += ["", f"{len(these)} {word}: {cause}"]
                lines += [f"    {one.clip_id}  {one.reason}".rstrip() for one in these[:SHOWN]]
                lines += [f"    and {len(these) - SHOWN} more"] if len(these) > SHOWN else []
        copies, copies_now = (_percent(facts["audit"]) for facts in self.facts)
        rows = [("", self.old, self.new, "")]
        rows += [(word, str(before[what]), str(after[what]), "") for what, word in COUNTS.items()]
        rows += [("near copies of training clips", copies, copies_now, "")]
        rows += [(f"{NAMES.get(one.metric, one.metric)}, {one.network} {one.arm}", interval(one.old), interval(one.new),
                  "  apart" if one.apart else "") for one in self.metrics]
        wide, wider = max(len(row[0]) for row in rows), max(len(cell) for row in rows for cell in row[1:3])
        lines += ["", *(f"{name:{wide}}  {old:>{wider}}  {new:>{wider}}{mark}" for name, old, new, mark in rows)]
        return "\n".join([*lines, *self._notes()])

    def _verdict(self) -> str:
        shared = [one for one in self.metrics if one.old is not None and one.new is not None]
        if not shared:
            return "no metric was measured in both"
        word, apart = NAMES.get(shared[0].metric, shared[0].metric), sum(one.apart for one in shared)
        return f"of {len(shared)} means of {word} {apart or 'none'} moved so far that the intervals are apart"

    def _notes(self) -> list[str]:
        if not self.metrics:
            return []
        tested = {
            True: "on the same test clips",
            False: "BUT ON OTHER TEST CLIPS, so that they cannot be compared",
            None: "git does not say whether on the same test clips",
        }[self.same_test]
        old, new = ("no" if number is None else str(number) for number in self.patients)
        return ["", f"Means with 95 % intervals over {old} and {new} held-out patients, {tested}.",
                "Intervals that overlap do not say that nothing changed."]


def diff(old: str, new: str, repo: str = ".") -> VersionDiff:
    """Compare two versions of a repository.

    Args:
        old, new: NAME@vN.
        repo: path or URL.

    Raises:
        ValueError: if one of them does not exist, or its files are nowhere or damaged.
    """
    releases = open_release(old, repo), open_release(new, repo)
    first, second = (dict(zip(one.ids, one.digests, strict=True)) for one in releases)
    gone, come = [one for one in first if one not in second], [one for one in second if one not in first]
    changed = [one for one in second if one in first and first[one] != second[one]]
    changes = [ClipChange(one, "added", *why) for one, why in zip(come, _absence(come, *reversed(releases)), strict=True)]
    changes += [ClipChange(one, "dropped", *why) for one, why in zip(gone, _absence(gone, *releases), strict=True)]
    changes += [ClipChange(one, "changed", "other code or another machine drew it", "") for one in changed]
    files = VersionFiles(old, repo), VersionFiles(new, repo)
    tested = [one.digest(PREPARED) for one in files]
    measured = [json.loads(one.cat_file(METRICS)) if one.digest(METRICS) else {} for one in files]
    counts = [one.pop("counts", {}).get("patients") for one in measured]
    return VersionDiff(old, new, (releases[0].facts, releases[1].facts), len(second) - len(come) - len(changed), changes,
                       _metrics(*measured), (counts[0], counts[1]), None if None in tested else tested[0] == tested[1])


def _absence(ids: Sequence[str], here: Release, there: Release) -> list[tuple[str, str]]:
    """Cause and reason why each of these clips, which are in one version, is not in the other."""
    refused = there.table("decisions")
    refused = refused.filter(pc.and_(pc.invert(refused["keep"]), pc.is_in(refused["clip_id"], pa.array(ids, pa.string()))))
    dropped = {row["clip_id"]: (f"{there.name} sampled it, and filter {row['filter']} dropped it ({row['threshold']})",
                                row["reason"]) for row in refused.to_pylist()}
    made = {row["clip_id"]: row for row in here.table("provenance").to_pylist()}
    others = {row["generator"]: row for row in there.table("provenance").to_pylist()}
    return [dropped.get(one) or (f"{there.name} did not sample it: {_difference(made[one], others)}", "") for one in ids]


def _difference(record: dict[str, Any], others: dict[str, dict[str, Any]]) -> str:
    """What of all that decides a clip's pixels the other version has otherwise; `others` has one clip of each generator."""
    name = record["generator"]
    if name not in others:
        return f"it has no clip of generator {name}"
    if record["checkpoint_digest"] != others[name]["checkpoint_digest"]:
        return f"its generator {name} is another checkpoint"
    own, its = (json.loads(one["sampling"]) for one in (record, others[name]))
    if keys := sorted(key for key in {*own, *its} if own.get(key) != its.get(key)):
        return "its " + ", ".join(f"{key} is {its.get(key, 'not set')}, not {own.get(key, 'not set')}" for key in keys)
    return "its condition, draw or seed was not asked for"


def _metrics(old: dict[str, Any], new: dict[str, Any]) -> list[Metric]:
    cells = dict.fromkeys((network, arm) for one in (new, old) for network, arms in one.items() for arm in arms)
    found = {metric for one in (new, old) for arms in one.values() for metrics in arms.values() for metric in metrics}
    primary = next((metric for metric in NAMES if metric in found), None)
    return [Metric(network, arm, primary, *(one.get(network, {}).get(arm, {}).get(primary) for one in (old, new)))
            for network, arm in cells if primary]


def _percent(audit: dict[str, Any]) -> str:
    if audit["value"] is None:
        return "n/a"
    return f"{100 * audit['value']:.1f} % [{100 * audit['low']:.1f}, {100 * audit['high']:.1f}]"
