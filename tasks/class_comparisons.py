"""From class probabilities of all runs to means, comparisons with the baseline and a verdict.

Values are means over trainings (seeds). Intervals draw patients, whose clips go together; those of differences draw trainings
as well, paired. The p of a difference is McNemar's exact test of the two arms' calls, each from the mean of its trainings'
probabilities: the test of Ctrl-GenAug. It takes clips for independent, which those of one patient are not, and so a verdict
also needs an interval without 0. Where a class is tied to few patients no test can tell the class from those patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import comparisons
from tasks.benchmarks import Conclusion
from tasks.comparisons import plain
from tasks.metrics.classification import estimate, mcnemar_exact, metric_values, patient_resamples, video_jaccard
from tasks.params import BenchmarkParams
from tasks.records import ClassificationRecord
from tasks.statistics import holm, resamples

PRIMARY = "balanced_accuracy"
TESTED = ("accuracy", "balanced_accuracy")
"""Metrics of calls, which McNemar's test speaks of."""
ABOVE_CHANCE = 0.1
"""By how much the baseline's balanced accuracy must exceed 1 / K, unless `learned` says from where a network counts. A network
that gives every clip one class is at 1 / K exactly."""
Values = npt.NDArray[np.float64]
Cells = dict[tuple[str, str], dict[str, Values]]
"""(network, arm) -> metric -> (seeds, 1 + draws): the whole test set first, then its resamples."""


def conclude(rows: Sequence[ClassificationRecord], benchmark: BenchmarkParams) -> Conclusion:
    """Everything at once; see `tasks.benchmarks.Conclusion`. Arms without rows are left out, and the verdict names them."""
    table = _Table(rows)
    if benchmark.learned is None:
        benchmark = benchmark.model_copy(update={"learned": round(1 / len(table.classes) + ABOVE_CHANCE, 3)})
    # the same resamples for every arm and network, so that differences are paired
    counts = patient_resamples(table.unit, benchmark.bootstrap, seed=0)
    values = {key: _values(table, key, counts) for key in table.probabilities}
    metrics = _summaries(values, table, benchmark)
    trained = comparisons.learned(metrics, benchmark, PRIMARY)
    compared = _compare(values, table, trained, benchmark)
    return Conclusion(metrics, compared, comparisons.verdict(metrics, compared, benchmark, PRIMARY))


class _Table:
    """The rows as arrays: `probabilities[network, arm]` is (seeds, N, K), clips in one order throughout."""

    def __init__(self, rows: Sequence[ClassificationRecord]) -> None:
        self.classes = rows[0].classes
        clips = {row.clip_id: row for row in rows}
        self.clips = list(clips)
        self.truth = np.array([self.classes.index(row.truth) for row in clips.values()])
        self.unit = np.unique([row.patient for row in clips.values()], return_inverse=True)[1]
        videos, self.video = np.unique([row.video for row in clips.values()], return_inverse=True)
        self.changing = any(len(set(self.truth[self.video == one])) > 1 for one, name in enumerate(videos) if name)
        """Whether a video shows more than one class: only then does it say something to judge it as a whole."""
        place = {clip: number for number, clip in enumerate(self.clips)}
        seeds = sorted({row.seed for row in rows})
        self.seeds = seeds
        shape = (len(seeds), len(self.clips), len(self.classes))
        self.probabilities: dict[tuple[str, str], Values] = {}
        for row in rows:
            cell = self.probabilities.setdefault((row.network, row.arm), np.full(shape, np.nan))
            cell[seeds.index(row.seed), place[row.clip_id]] = row.probabilities


def _values(table: _Table, key: tuple[str, str], counts: Values) -> dict[str, Values]:
    found = [metric_values(one, table.truth, table.classes, counts) for one in table.probabilities[key]]
    if table.changing:
        found = [one | video_jaccard(given.argmax(1), table.truth, table.video, table.classes, counts)
                 for one, given in zip(found, table.probabilities[key], strict=True)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def _summaries(values: Cells, table: _Table, benchmark: BenchmarkParams) -> dict[str, Any]:
    patients = int(table.unit.max()) + 1
    metrics: dict[str, Any] = {}
    for (network, arm), cell in values.items():
        metrics.setdefault(network, {})[arm] = {
            name: {**_interval(drawn.mean(0)), "seed_sd": plain(float(drawn[:, 0].std(ddof=1)) if len(drawn) > 1 else np.nan),
                   "patients": patients}
            for name, drawn in cell.items()
        }
    metrics["counts"] = {"patients": patients, "clips": len(table.clips), "seeds": len(benchmark.seeds),
                         "networks": len(benchmark.networks), "arms": len(benchmark.arms)}
    return metrics


def _compare(values: Cells, table: _Table, trained: Sequence[str], benchmark: BenchmarkParams) -> list[dict[str, Any]]:
    """By network and pooled over those that have learned, metric by metric; Holm over arms and networks, pooled apart."""
    scored = {arm for _, arm in values}
    arms = [arm for arm in benchmark.arms if arm != benchmark.baseline and arm in scored]
    of_seeds = resamples(len(table.seeds), benchmark.bootstrap, np.random.default_rng(1))
    names = list(next(iter(values.values())))
    found: list[dict[str, Any]] = []
    for metric in names:
        alone = {network: [network] for network in benchmark.networks}
        for family in (alone, {comparisons.POOLED: list(trained)} if trained else {}):
            block = [_one(values, table, network, members, arm, metric, of_seeds, benchmark)
                     for network, members in family.items() for arm in arms]
            tested = [one for one in block if one["p"] is not None]
            for one, p_holm in zip(tested, holm([one["p"] for one in tested]), strict=True):
                one["p_holm"] = p_holm
                one["verdict"] = _verdict(one)
            found += block
    return found


def _one(values: Cells, table: _Table, network: str, members: Sequence[str], arm: str, metric: str,
         of_seeds: npt.NDArray[np.int64], benchmark: BenchmarkParams) -> dict[str, Any]:
    own, base = (np.mean([values[one, name][metric] for one in members], axis=0) for name in (arm, benchmark.baseline))
    change = own - base  # (seeds, 1 + draws)
    drawn = (change[:, 1:] * of_seeds.T).sum(0) / len(change)
    found = estimate(np.append(change[:, 0].mean(), drawn))
    p = _mcnemar(table, members, arm, benchmark.baseline) if metric in TESTED else None
    return {"network": network, "arm": arm, "baseline": benchmark.baseline, "metric": metric,
            "difference": plain(found.value), "low": plain(found.low), "high": plain(found.high),
            "p": p, "p_holm": None, "verdict": "not tested", "patients": int(table.unit.max()) + 1,
            "seed_differences": [plain(one) for one in change[:, 0]]}


def _mcnemar(table: _Table, members: Sequence[str], arm: str, baseline: str) -> float:
    """On calls from probabilities averaged over seeds and, when pooled, over networks."""

    def calls(name: str) -> npt.NDArray[np.int64]:
        return np.mean([table.probabilities[one, name].mean(0) for one in members], axis=0).argmax(1)

    return mcnemar_exact(calls(arm), calls(baseline), table.truth)


def _verdict(one: dict[str, Any]) -> str:
    if one["low"] is None or one["p_holm"] >= comparisons.SIGNIFICANT or one["low"] <= 0 <= one["high"]:
        return "no significant difference"
    return "significant gain" if one["low"] > 0 else "significant loss"


def _interval(drawn: Values) -> dict[str, float | None]:
    found = estimate(drawn)
    return {"mean": plain(found.value), "low": plain(found.low), "high": plain(found.high)}
