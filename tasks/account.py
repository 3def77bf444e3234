"""What the data card and the report tell: counts, filters and benchmark, read from the files the line wrote.

Nothing is computed here that an earlier stage could have got differently; this only counts rows and pairs them up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.params import Params
from tasks.records import ClipRecord, Decision, QuarantineRecord
from tasks.tables import read_json, read_table

POOLED = "pooled"
NAMES = {
    "dice": "Dice", "hausdorff": "Hausdorff, px", "g2re": "G2RE, px", "r2ge": "R2GE, px", "sensitivity": "Sensitivity",
    "precision": "Precision", "balanced_accuracy": "Balanced accuracy", "video_jaccard": "Jaccard by video",
    "accuracy": "Accuracy", "auroc": "Macro AUROC",
    "f1": "Macro F1", "one_vs_rest_accuracy": "One-vs-rest accuracy",
}
"""The metrics that pages show, in their order; the first of them that a benchmark has is its primary one."""
SENSITIVITY = "sensitivity_"
TASKS = {"dice": "Segmentation", "balanced_accuracy": "Classification"}
TESTS = {"dice": "Wilcoxon's signed-rank over patients", "balanced_accuracy": "McNemar's exact test over clips"}


@dataclass(frozen=True)
class SourceAccount:
    """The prepared data set in numbers. `clips`, `patients` and what is annotated of them are by split.

    `sources` are the files (or simulated recordings) found, `used` those that gave a clip. `labels` has the clips of each
    class by split; `tied` says that every patient shows one class only.
    """

    quarantined: list[QuarantineRecord]
    clips: dict[str, int]
    patients: dict[str, int]
    annotated: dict[str, int]
    annotated_patients: dict[str, int]
    sources: int
    used: int
    labels: dict[str, dict[str, int]]
    tied: bool

    @property
    def total(self) -> int:
        return sum(self.clips.values())


@dataclass(frozen=True)
class FilterAccount:
    """One filter of the chain: how many clips reached it and what it did with them."""

    name: str
    decisions: tuple[Decision, ...]

    @property
    def candidates(self) -> int:
        return len(self.decisions)

    @property
    def dropped(self) -> int:
        return sum(not decision.keep for decision in self.decisions)

    @property
    def threshold(self) -> str:
        """As the decisions state it; several, if they differ."""
        return "; ".join(dict.fromkeys(decision.threshold for decision in self.decisions))

    @property
    def limits(self) -> list[float]:
        """The numbers in the threshold."""
        spaced = self.threshold.replace("..", " ")
        return [float(number) for number in re.findall(r"(?<!\w)-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", spaced)]

    @property
    def score_only(self) -> bool:
        return any(decision.reason.startswith("score only") for decision in self.decisions)

    @property
    def scores(self) -> str:
        """Smallest, median and largest score in words."""
        values = np.array([decision.score for decision in self.decisions])
        values = values[np.isfinite(values)]
        return f"{values.min():.4g}, {np.median(values):.4g}, {values.max():.4g}" if values.size else "none"


@dataclass(frozen=True)
class BenchmarkAccount:
    """The benchmark as it was written: `metrics[network][arm][metric]` has mean, low and high, the baseline first."""

    sentence: str
    counts: dict[str, int]
    metrics: dict[str, dict[str, dict[str, dict[str, Any]]]]
    comparisons: list[dict[str, Any]]

    def comparison(self, network: str, arm: str, metric: str | None = None) -> dict[str, Any] | None:
        """The arm against the baseline, or None for the baseline itself."""
        wanted = (network, arm, metric or self.primary)
        return next((one for one in self.comparisons if (one["network"], one["arm"], one["metric"]) == wanted), None)

    @property
    def shown(self) -> list[str]:
        """The metrics that the runs have, in the usual order."""
        measured = {metric for arms in self.metrics.values() for metrics in arms.values() for metric in metrics}
        return [metric for metric in NAMES if metric in measured]

    @property
    def primary(self) -> str:
        """The metric that arms are judged by."""
        return self.shown[0]

    @property
    def classes(self) -> list[str]:
        """Those that have a sensitivity of their own, in the order of the first run."""
        cells = next(iter(next(iter(self.metrics.values()), {}).values()), {})
        return [name.removeprefix(SENSITIVITY) for name in cells if name.startswith(SENSITIVITY)]

    def sensitivity(self, network: str, arm: str, label: str) -> dict[str, Any]:
        """Share of the class's clips that are called it."""
        return self.metrics[network][arm][SENSITIVITY + label]

    @property
    def task(self) -> str:
        """What the networks were asked to do."""
        return TASKS[self.primary]


def read_sources(prepared: Path) -> SourceAccount:
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    refused = prepared / "quarantine.parquet"
    summary = read_json(prepared / "summary.json")
    by_split = {split: [record for record in records if record.split == split] for split in ("train", "val", "test")}
    marked = {split: [record for record in found if record.annotated] for split, found in by_split.items()}
    return SourceAccount(
        quarantined=read_table(refused, QuarantineRecord) if refused.exists() else [],
        clips={split: len(found) for split, found in by_split.items()},
        patients={split: len({record.patient for record in found}) for split, found in by_split.items()},
        annotated={split: len(found) for split, found in marked.items()},
        annotated_patients={split: len({record.patient for record in found}) for split, found in marked.items()},
        sources=summary["sources"],
        used=summary["sources_used"],
        labels={label: {split: sum(record.label == label for record in found) for split, found in by_split.items()}
                for label in sorted({record.label for record in records if record.label})},
        tied=_tied(records),
    )


def _tied(records: Sequence[ClipRecord]) -> bool:
    shown: dict[str, set[str]] = {}
    for record in records:
        if record.label:
            shown.setdefault(record.patient, set()).add(record.label)
    return bool(shown) and all(len(labels) == 1 for labels in shown.values())


def read_filters(decisions: Sequence[Decision]) -> list[FilterAccount]:
    """The chain in the order in which it decided."""
    names = dict.fromkeys(decision.filter for decision in decisions)
    return [FilterAccount(name, tuple(one for one in decisions if one.filter == name)) for name in names]


def read_benchmark(folder: Path) -> BenchmarkAccount | None:
    """None when no benchmark was run."""
    if not all((folder / name).exists() for name in ("metrics.json", "comparisons.json", "verdict.json")):
        return None
    metrics: dict[str, Any] = read_json(folder / "metrics.json")
    verdict: dict[str, Any] = read_json(folder / "verdict.json")
    counts = metrics.pop("counts", {})
    comparisons: list[dict[str, Any]] = read_json(folder / "comparisons.json")
    # JSON has sorted keys; the comparisons are a list in the order of the parameters, the baseline goes before them.
    networks = dict.fromkeys([*(one["network"] for one in comparisons if one["network"] in metrics), *metrics])
    arms = dict.fromkeys([one[which] for which in ("baseline", "arm") for one in comparisons])
    ordered = {name: {arm: metrics[name][arm] for arm in [*arms, *metrics[name]] if arm in metrics[name]} for name in networks}
    return BenchmarkAccount(verdict["sentence"], counts, ordered, comparisons)


def interval(cell: dict[str, Any] | None, digits: int = 3, sign: str = "", value: str = "mean") -> str:
    """"0.812 [0.790, 0.834]"; "n/a" where nothing is defined."""
    if cell is None or cell.get(value) is None:
        return "n/a"
    low, high = (cell.get(end) for end in ("low", "high"))
    form = f"{sign}z.{digits}f"  # z: no negative zero
    middle = f"{cell[value]:{form}}"
    return middle if low is None or high is None else f"{middle} [{low:{form}}, {high:{form}}]"


def p_value(p: float | None) -> str:
    if p is None:
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def arm_in_words(params: Params, name: str) -> str:
    """What an arm trains on, and in what its synthetic set differs from the released one."""
    arm = params.benchmark.arms[name]
    fewer = [f"{arm.real_share:.0%} of the patients"] if arm.real_share < 1 else []
    fewer += [f"{share:.0%} of class {label}" for label, share in arm.rare.items()]
    parts = [f"real clips{' (' + ', '.join(fewer) + ')' if fewer else ''}"] if arm.real else []
    if arm.synthetic is not None:
        kept = "kept by the filters" if arm.filtered else "unfiltered"
        if arm.filters is not None:
            kept = f"kept by {' and '.join(arm.filters) or 'no filter'}"
        kept += f", at most {arm.per_class} of each class" if arm.per_class else ""
        differs = differences(params, arm.synthetic)
        parts.append(f"synthetic clips of “{arm.synthetic}” ({kept}{'; ' + differs if differs else ''})")
    joined = " and then ".join(reversed(parts)) if arm.schedule == "finetuned" else " and ".join(parts)
    how = ["geometric augmentation"] if arm.geometric else [f"{arm.augment} augmentation"] if arm.augment else []
    how += [arm.mix] if arm.mix else []
    return joined + (f", with {' and '.join(how)}" if how else "") + ("" if arm.balanced else "; classes as often as they are")


def differences(params: Params, name: str) -> str:
    """Options in which a synthetic set differs from the released one; empty for that one itself."""
    own, released = params.samples[name], params.samples[params.release.source]
    changed = [f"generator {own.generator}"] if own.generator != released.generator else []
    if own.clips != released.clips:
        changed.append(f"{own.clips} clips instead of {released.clips}")
    keys = sorted({*own.sampling, *released.sampling})
    changed += [
        f"{key} {own.sampling.get(key, 'default')} instead of {released.sampling.get(key, 'default')}"
        for key in keys
        if own.sampling.get(key) != released.sampling.get(key)
    ]
    return ", ".join(changed)
