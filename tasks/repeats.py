"""The whole line on other random splits of the patients and at other training fractions: which, and what all say together.

One split says as much of its few test patients as of the arms. Here the split is the unit: generators, critics, filters and
benchmark are made anew on each one's own training patients, and arms are compared split by split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks import comparisons
from tasks.account import NAMES, read_benchmark
from tasks.class_comparisons import ABOVE_CHANCE
from tasks.comparisons import POOLED, WORDS, p_words, plain
from tasks.fingerprint import fingerprint
from tasks.metrics.segmentation import DISTANCES
from tasks.params import Params
from tasks.statistics import holm, resplit_mean
from tasks.tables import atomic_write, file_digest, read_json, read_sealed, write_json, write_sealed

DONE = "repeat.json"


@dataclass(frozen=True)
class Repeat:
    """One time through the line: the share of the patients that train, and the seed of everything."""

    train: float
    seed: int

    @property
    def name(self) -> str:
        return f"train_{self.train:g}_seed_{self.seed}"


def plan_repeats(params: Params, names: Sequence[str] = ()) -> list[Repeat]:
    """Seed by seed, so that a stopped study has whole seeds; of `names` only, if there are any.

    Raises:
        ValueError: without a section `repeats`, or for a name that is not planned.
    """
    if params.repeats is None:
        raise ValueError("repeats: params.yaml has no such section; give seeds and train, e.g. "
                         "repeats: {seeds: [0, 1, 2], train: [0.7, 0.5, 0.3]}")
    every = [Repeat(train, seed) for seed in params.repeats.seeds for train in params.repeats.train]
    if strange := set(names) - {one.name for one in every}:
        raise ValueError(f"{', '.join(sorted(strange))}: not planned; choose among {', '.join(one.name for one in every)}")
    return [one for one in every if not names or one.name in names]


def write_params(params: Path, repeat: Repeat, out: Path) -> Path:
    """The parameter file of one repeat: another seed and split, all else as in `params`."""
    tree = yaml.safe_load(params.read_text())
    val = tree["dataset"]["split"]["val"]
    tree["seed"] = repeat.seed
    tree["dataset"]["split"] = {"train": repeat.train, "val": val, "test": round(1 - repeat.train - val, 9)}
    del tree["repeats"]
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "params.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode())
    return out / "params.yaml"


def is_done(folder: Path) -> bool:
    """Whether the line ran to its end here with these parameters, prepared clips and code. Ask after `prepare`."""
    return (folder / DONE).exists() and read_sealed(folder / DONE)["fingerprint"] == _mark(folder)


def finish(folder: Path) -> None:
    write_sealed(folder / DONE, {"fingerprint": _mark(folder)})


def _mark(folder: Path) -> str:
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree.pop("engine", None)  # no result depends on it; of the rest the order counts too, that of filters
    return fingerprint("repeat", yaml.safe_dump(tree, sort_keys=False), file_digest(folder / "prepared" / "manifest.parquet"))


def pool(params: Params, folder: Path) -> dict[str, Any]:
    """Write `repeats.json`: by training share {splits, learned, means, comparisons, verdict, animation}, of all repeats.

    `means[network][arm][metric]` and every comparison with the baseline have the mean over splits, a 95 % interval and, split
    by split, `values`; p is that of `tasks.statistics.resplit_mean`, corrected (Holm) over the arms and networks of a metric.
    "pooled" is the mean over networks whose baseline has learned the task. `animation[set]` has, of sets whose generator
    animates stills, the `margin` in dB by which reconstructions beat the repeated first frame, and how far apart `samples` of
    one still and `reconstructions` of one clip are, as means over splits like the others; `nearer` and `more_varied` count the
    splits whose own interval, over their held-out patients, says so.

    Raises:
        ValueError: if a repeat is missing.
    """
    plan = plan_repeats(params)
    if missing := [one.name for one in plan if not (folder / one.name / DONE).exists()]:
        raise ValueError(f"{folder}: {len(missing)} of {len(plan)} repeats are missing, the first is {missing[0]}; run "
                         "`cinefab repeat` again")
    found = {f"{train:g}": _share(params, folder, [one for one in plan if one.train == train])
             for train in dict.fromkeys(one.train for one in plan)}
    write_json(folder / "repeats.json", found)
    return found


def _share(params: Params, folder: Path, repeats: Sequence[Repeat]) -> dict[str, Any]:
    splits = [{"seed": one.seed, **_counts(folder / one.name)} for one in repeats]
    ratio = sum(one["test_patients"] for one in splits) / sum(one["train_patients"] for one in splits)
    accounts = [read_benchmark(folder / one.name / "benchmark") for one in repeats]
    cells = [account.metrics for account in accounts if account is not None]
    networks, arms = list(cells[0]), [arm for arm in params.benchmark.arms if all(arm in of[net] for of in cells for net in of)]
    metrics = [name for name in NAMES if all(name in of[net][arm] for of in cells for net in networks for arm in arms)]
    values = {(network, arm, metric): [of[network][arm][metric]["mean"] for of in cells]
              for network in networks for arm in arms for metric in metrics}
    values = {key: given for key, given in values.items() if None not in given}
    learned = _learned(params, values, networks, metrics[0], splits[0]["classes"])
    for arm in arms if learned else ():
        for metric in metrics:
            if all((network, arm, metric) in values for network in learned):
                columns = zip(*(values[network, arm, metric] for network in learned), strict=True)
                values[POOLED, arm, metric] = [sum(column) / len(column) for column in columns]
    means: dict[str, Any] = {}
    for (network, arm, metric), given in values.items():
        cell = _spread(given, ratio)
        if metric not in DISTANCES:  # the t distribution does not know that shares end at 0 and 1
            cell |= {end: min(max(cell[end], 0.0), 1.0) for end in ("low", "high")}
        means.setdefault(network, {}).setdefault(arm, {})[metric] = cell
    compared = _compare(params.benchmark.baseline, values, ratio)
    return {"splits": splits, "learned": learned, "means": means, "comparisons": compared,
            "verdict": _verdict(params, means, compared, metrics[0], learned),
            "animation": _animation([folder / one.name / "control" for one in repeats], params, ratio)}


def _animation(folders: Sequence[Path], params: Params, ratio: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in params.samples:
        files = [folder / name / "animation.json" for folder in folders]
        if all(file.exists() for file in files):
            every = [read_json(file) for file in files]
            near, apart = [one["reconstruction"]["psnr"] for one in every], [one["diversity"]["pixels"] for one in every]
            found[name] = {"margin": _spread([one["margin"] for one in near], ratio),
                           "nearer": sum(one["excludes_0"] and one["margin"] > 0 for one in near),
                           "more_varied": sum(one["excludes_0"] and one["difference"] > 0 for one in apart),
                           **{whose: _spread([one[whose] for one in apart], ratio) for whose in ("samples", "reconstructions")}}
    return found


def _counts(folder: Path) -> dict[str, int]:
    summary = read_json(folder / "prepared" / "summary.json")
    counts = {f"{split}_{what}": summary["splits"][split][what]
              for split in ("train", "test") for what in ("patients", "clips")}
    return counts | {"classes": len(summary["labels"])}


def _learned(params: Params, values: dict[tuple[str, str, str], list[float]], networks: Sequence[str], primary: str,
             classes: int) -> list[str]:
    """By the same threshold as in one benchmark, on the mean over splits."""
    least = params.benchmark.learned
    if least is None:
        least = comparisons.LEARNED if params.benchmark.kind == "segmentation" else 1 / classes + ABOVE_CHANCE
    of_baseline = {network: values.get((network, params.benchmark.baseline, primary), [0.0]) for network in networks}
    return [network for network, given in of_baseline.items() if sum(given) / len(given) >= least]


def _spread(given: Sequence[float], ratio: float) -> dict[str, Any]:
    found = resplit_mean(given, ratio)
    return {"mean": plain(found.mean), "low": plain(found.low), "high": plain(found.high), "values": list(given)}


def _compare(baseline: str, values: dict[tuple[str, str, str], list[float]], ratio: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for (network, arm, metric), given in values.items():
        base = values.get((network, baseline, metric))
        if arm == baseline or base is None:
            continue
        change = [own - other for own, other in zip(given, base, strict=True)]
        result = asdict(resplit_mean(change, ratio))
        found.append({"network": network, "arm": arm, "metric": metric, "difference": result["mean"], "low": result["low"],
                      "high": result["high"], "p": result["p"], "values": change})
    for pooled in (True, False):  # families of their own, as in one benchmark
        for metric in dict.fromkeys(one["metric"] for one in found):
            family = [one for one in found if one["metric"] == metric and (one["network"] == POOLED) == pooled]
            for one, p_holm in zip(family, holm([one["p"] for one in family]), strict=True):
                one["p_holm"] = p_holm
                better = (one["difference"] > 0) != (metric in DISTANCES)
                sure = p_holm < comparisons.SIGNIFICANT
                one["verdict"] = f"significant {'gain' if better else 'loss'}" if sure else "no significant difference"
    return found


def _verdict(params: Params, means: dict[str, Any], compared: Sequence[dict[str, Any]], primary: str,
             learned: Sequence[str]) -> str:
    """One plain sentence about the best arm that has synthetic clips beside real ones, or has them alone."""
    baseline, word = params.benchmark.baseline, WORDS[primary]
    rows = [one for one in compared if one["network"] == POOLED and one["metric"] == primary
            and params.benchmark.arms[one["arm"]].synthetic is not None]
    if not learned:
        return f"No network reached the {word} from which it counts as having learned the task, so nothing can be said."
    if not rows:
        return "No arm with synthetic clips could be compared in every split, so nothing can be said of their use."
    best = max(rows, key=lambda one: one["difference"])
    judged = {"significant gain": "Synthetic clips helped", "significant loss": "Synthetic clips cost accuracy"}.get(
        best["verdict"], "Synthetic clips did not help significantly")
    own, base = (means[POOLED][arm][primary]["mean"] for arm in (best["arm"], baseline))
    better = sum(value > 0 for value in best["values"])
    return (f"{judged}: the best such arm, {best['arm']}, reached a mean {word} of {own:.3f} against {base:.3f} for {baseline} "
            f"(difference {best['difference']:+.3f}, 95 % CI {best['low']:+.3f} to {best['high']:+.3f}, Holm-corrected p "
            f"{p_words(best['p_holm'])}; "
            f"better in {better} of {len(best['values'])} splits; {', '.join(learned)}).")
