"""From the rows of all runs to means, comparisons with the baseline and a verdict.

The unit is the patient. A mean's interval speaks of other patients, the seeds averaged; how much training alone moves it
stands beside it as `seed_sd`. A difference between arms has an interval over patients and trainings, since one lucky seed can
move it more than all patients together, and the difference found by each seed stands beside it. "pooled" is the mean, patient
by patient, over the networks that have learned the task: one that has not moves by chance as much as by what it is trained
on, and must not carry a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from tasks.metrics.segmentation import MEAN, METRICS, OVERLAPS
from tasks.params import BenchmarkParams
from tasks.records import EvaluationRecord
from tasks.statistics import bootstrap_mean, holm, paired_difference

POOLED = "pooled"
PRIMARY = "dice"
WORDS = {"dice": "Dice", "balanced_accuracy": "balanced accuracy"}
"""Primary metrics, as sentences call them."""
SIGNIFICANT = 0.05
LEARNED = 0.5
"""Mean Dice of the baseline from which a network counts, if the parameters name none."""


def summaries(rows: Sequence[EvaluationRecord], benchmark: BenchmarkParams) -> dict[str, Any]:
    """{network: {arm: {metric: {mean, low, high, seed_sd, patients}}}} and "counts"; what is undefined is None.

    Metrics are the means over classes; with more than one class "dice_<class>" stands beside them. Intervals are 95 %
    percentile bootstrap over patients.
    """
    table = pd.DataFrame([asdict(row) for row in rows])
    whole = table[table.label == MEAN]
    labels = [label for label in table.label.unique() if label != MEAN]
    metrics: dict[str, Any] = {}
    for (network, arm), cell in table.groupby(["network", "arm"], sort=False):
        parts = {metric: (cell[cell.label == MEAN], metric) for metric in METRICS}
        if len(labels) > 1:
            parts |= {f"{PRIMARY}_{label}": (cell[cell.label == label], PRIMARY) for label in labels}
        metrics.setdefault(str(network), {})[str(arm)] = {
            name: _summary(part, column, benchmark.bootstrap) for name, (part, column) in parts.items()
        }
    metrics["counts"] = {"patients": int(whole.patient.nunique()), "clips": int(whole.clip_id.nunique()),
                         "seeds": len(benchmark.seeds), "networks": len(benchmark.networks), "arms": len(benchmark.arms)}
    return metrics


def learned(metrics: dict[str, Any], benchmark: BenchmarkParams, primary: str = PRIMARY) -> list[str]:
    """The networks whose baseline arm reached `benchmark.learned`, as a mean in the primary metric."""
    reached = {network: metrics[network][benchmark.baseline][primary]["mean"] for network in benchmark.networks}
    return [network for network, value in reached.items() if value is not None and value >= _threshold(benchmark)]


def compare(rows: Sequence[EvaluationRecord], metrics: dict[str, Any], benchmark: BenchmarkParams) -> list[dict[str, Any]]:
    """Each arm minus the baseline, for each metric, by network and pooled, in the order of the parameters.

    The difference has a 95 % paired bootstrap interval over patients and trainings, and the p of Wilcoxon's signed-rank test
    over patients, corrected (Holm) over all arms and networks of one metric; the pooled comparisons are a family of their
    own. "significant" needs both p_holm < 0.05 and an interval without 0. A gain is more overlap or less distance. Without a
    network that has learned there is no pooled comparison.
    """
    table = pd.DataFrame([asdict(row) for row in rows])
    whole = table[table.label == MEAN]
    arms = [arm for arm in benchmark.arms if arm != benchmark.baseline and arm in set(whole.arm)]
    families = {network: [network] for network in benchmark.networks}
    pool = {POOLED: trained} if (trained := learned(metrics, benchmark)) else {}
    found: list[dict[str, Any]] = []
    for metric in METRICS:
        # Patients x (network, arm, seed), then means over seeds and networks: one patient one row throughout.
        keys = ["network", "arm", "seed"]
        cube = whole.pivot_table(index="patient", columns=keys, values=metric, aggfunc="mean", dropna=False)
        for family in (families, pool):
            block = [_compared(cube, network, arm, metric, benchmark, members) for network, members in family.items()
                     for arm in arms]
            tested = [one for one in block if one["patients"] > 0]
            for one, p_holm in zip(tested, holm([one["p"] for one in tested]), strict=True):
                one["p_holm"] = p_holm
                one["verdict"] = _verdict(one["low"], one["high"], p_holm, metric)
            found += block
    return found


def verdict(metrics: dict[str, Any], comparisons: Sequence[dict[str, Any]], benchmark: BenchmarkParams,
            primary: str = PRIMARY) -> dict[str, Any]:
    """Plain words: did synthetic clips help over the baseline? By the pooled primary metric of the best arm that has them.

    Networks that have not learned the task are named, with their baseline's value; without one that has, nothing is said.
    So are arms for which the chain kept no clip.
    """
    compared = {one["arm"] for one in comparisons}
    wanted = [name for name, arm in benchmark.arms.items() if arm.synthetic is not None and name != benchmark.baseline]
    synthetic = [name for name in wanted if name in compared]
    emptied = ", ".join(name for name in wanted if name not in compared)
    pooled = [one for one in comparisons if one["network"] == POOLED and one["metric"] == primary and one["arm"] in synthetic]
    if not synthetic:
        why = f"The chain kept no clip for {emptied}" if emptied else "No arm with synthetic clips was compared"
        return {"sentence": f"{why}, so nothing can be said about their use.", "helped": None}
    trained, word = learned(metrics, benchmark, primary), WORDS[primary]
    idle = ", ".join(f"{network} ({metrics[network][benchmark.baseline][primary]['mean'] or 0:.3f})"
                     for network in benchmark.networks if network not in trained)
    below = f"below the {word} of {_threshold(benchmark):g} from which a network counts as having learned the task"
    if not pooled:
        remedy = "nothing can be said about the use of synthetic clips; train the benchmark's networks for longer"
        return {"sentence": f"The baseline {benchmark.baseline} stayed {below}: {idle}; {remedy}.", "helped": None}
    gains = [one for one in pooled if one["verdict"] == "significant gain"]
    best = max(gains or pooled, key=lambda one: one["difference"])
    if gains:
        judgement = "Synthetic clips helped"
    elif best["verdict"] == "significant loss":
        judgement = "Synthetic clips did not help but cost accuracy"
    else:
        judgement = "Synthetic clips did not help significantly"
    counts = metrics["counts"]
    base, own = (_pooled_mean(metrics, trained, arm, primary) for arm in (benchmark.baseline, best["arm"]))
    agree = sum((value > 0) == (best["difference"] > 0) for value in best["seed_differences"])
    sentence = (
        f"{judgement}: the best such arm, {best['arm']}, reached a mean {word} of {own:.3f} against {base:.3f} for the "
        f"baseline {benchmark.baseline} (difference {best['difference']:+.3f}, 95 % CI {best['low']:+.3f} to "
        f"{best['high']:+.3f}, Holm-corrected p {p_words(best['p_holm'])}; same sign in {agree} of {counts['seeds']} seeds; "
        f"{counts['patients']} held-out patients; {', '.join(trained)})."
    )
    if idle:
        sentence += f" Left out, the baseline being {below}: {idle}."
    if emptied:
        sentence += f" Left out, the chain having kept no clip for them: {emptied}."
    facts = {key: best[key] for key in ("arm", "baseline", "metric", "difference", "low", "high", "p_holm")}
    return {"sentence": sentence, "helped": bool(gains), **facts}


def _summary(part: pd.DataFrame, metric: str, draws: int) -> dict[str, float | int | None]:
    result = bootstrap_mean(part[metric].to_numpy(), part.patient.tolist(), draws=draws)
    by_seed = part.groupby(["seed", "patient"])[metric].mean().groupby("seed").mean()
    values = {"mean": result.mean, "low": result.low, "high": result.high, "seed_sd": float(by_seed.std())}
    return {**{name: plain(value) for name, value in values.items()}, "patients": result.n}


def _compared(cube: pd.DataFrame, network: str, arm: str, metric: str, benchmark: BenchmarkParams,
              members: list[str]) -> dict[str, Any]:
    """One row of comparisons.json, not yet corrected: the mean over `members`, called `network`."""

    def patients(name: str) -> pd.DataFrame:
        """Patients x seeds; a patient that one network leaves undefined is undefined in the mean over networks."""
        return sum(cube[one][name] for one in members) / len(members)

    own, base = patients(arm), patients(benchmark.baseline)
    seeds = list(benchmark.seeds)
    result = paired_difference(own[seeds].to_numpy(), base[seeds].to_numpy(), draws=benchmark.bootstrap)
    row: dict[str, Any] = {
        "network": network, "arm": arm, "baseline": benchmark.baseline, "metric": metric,
        "difference": plain(result.mean), "low": plain(result.low), "high": plain(result.high), "p": plain(result.p),
        "p_holm": None, "verdict": "not defined", "patients": result.n,
    }
    return row | {"seed_differences": [plain((own[seed] - base[seed]).mean()) for seed in seeds]}


def _verdict(low: float, high: float, p_holm: float, metric: str) -> str:
    if p_holm >= SIGNIFICANT or low <= 0 <= high:
        return "no significant difference"
    return "significant gain" if (low > 0) == (metric in OVERLAPS) else "significant loss"


def _threshold(benchmark: BenchmarkParams) -> float:
    return LEARNED if benchmark.learned is None else benchmark.learned


def _pooled_mean(metrics: dict[str, Any], networks: Sequence[str], arm: str, primary: str) -> float:
    means = [metrics[network][arm][primary]["mean"] for network in networks]
    return float(sum(means) / len(means))


def plain(value: float) -> float | None:
    """JSON has no NaN: what is undefined is null."""
    return float(value) if math.isfinite(value) else None


def p_words(value: float) -> str:
    """"= 0.012", as it stands in a sentence after p."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
