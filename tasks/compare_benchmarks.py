"""Two runs' benchmarks, arm by arm and network by network.

On the same held-out clips each run is an arm, and the benchmark's own statistics say what changed. On other clips nothing is
tested: easier patients would pass for a better line.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models import plugin
from tasks.account import BenchmarkAccount, read_benchmark
from tasks.benchmarks import Conclusion
from tasks.params import ArmParams, BenchmarkParams
from tasks.tables import read_table

DRAWS = 2000
"""Bootstrap samples."""

SAME, ALONE, UNTESTED = "the same results", "in one run only", "not tested"
SIGNIFICANT = ("significant gain", "significant loss")
FIRST, SECOND = "A", "B"
Key = tuple[str, str]
"""Network and arm."""
Tested = dict[tuple[str, str, str], tuple[dict[str, Any], str]]
"""Network, arm and metric -> difference and verdict."""


@dataclass(frozen=True)
class Changed:
    """One metric of one arm and network in both runs.

    Attributes:
        first, second: {mean, low, high} as the runs' own benchmarks say; None if a run has none.
        difference: {value, low, high, p_holm} of second minus first; None where no test was made.
        verdict: "significant gain", "significant loss", "no significant difference", "the same results" (number by number),
            "in one run only", or "not tested".
    """

    network: str
    arm: str
    metric: str
    first: dict[str, Any] | None
    second: dict[str, Any] | None
    difference: dict[str, Any] | None
    verdict: str


@dataclass(frozen=True)
class Benchmarks:
    """Every metric of both runs, what could not be compared and why, the metric that arms are judged by, and how many held-out
    patients both have in common, 0 if nothing was tested."""

    rows: list[Changed]
    limits: list[str]
    primary: str | None
    patients: int


def compare_benchmarks(first: Path, second: Path, redefined: Collection[str] = ()) -> Benchmarks:
    """Compare two benchmark folders.

    A difference has a 95 % interval, over patients and trainings, from pairs: the same patient, and the same seed. Its p is
    that of the benchmark's own test, corrected (Holm) over the arms and networks of a metric. Arms whose results are the same
    to the last digit ask no question and are not among them.

    Args:
        redefined: metrics that the two runs do not mean the same by; they are not tested.
    """
    accounts = [read_benchmark(folder) for folder in (first, second)]
    missing = [name for name, account in zip((FIRST, SECOND), accounts, strict=True) if account is None]
    if missing:
        return Benchmarks(_rows(accounts, {}), [f"{' and '.join(missing)} ran no benchmark"], _primary(accounts), 0)
    kinds = [account.task for account in accounts if account]
    if len(set(kinds)) > 1:
        return Benchmarks(_rows(accounts, {}), [f"A has a benchmark of {kinds[0].lower()} and B one of "
                                                f"{kinds[1].lower()}, which have nothing in common"], None, 0)
    module = plugin.load("tasks.benchmarks", kinds[0].lower())
    rows = [read_table(folder / "runs.parquet", module.ROW) for folder in (first, second)]
    seeds = sorted(set.intersection(*({row.seed for row in part} for part in rows)))
    if why := _unpaired(rows, seeds):
        return Benchmarks(_rows(accounts, {}), [why], _primary(accounts), 0)
    cells = [_by_key(part, seeds) for part in rows]
    common = [key for key in cells[0] if key in cells[1]]
    same = {key for key in common if sorted(map(repr, cells[0][key])) == sorted(map(repr, cells[1][key]))}
    tested = _tested(module, [key for key in common if key not in same], cells, seeds)
    tested = {key: one for key, one in tested.items() if key[2] not in redefined}
    limits = [] if all({row.seed for row in part} == set(seeds) for part in rows) else [
        f"differences are over the seeds that both have: {', '.join(map(str, seeds))}"]
    return Benchmarks(_rows(accounts, tested, same), limits, _primary(accounts), len({row.patient for row in rows[0]}))


def _primary(accounts: Sequence[BenchmarkAccount | None]) -> str | None:
    return next((account.primary for account in accounts if account), None)


def _unpaired(rows: Sequence[Sequence[Any]], seeds: Sequence[int]) -> str:
    """Why these two benchmarks have no pairs; "" if they have."""
    clips = [{row.clip_id for row in part} for part in rows]
    if clips[0] != clips[1]:
        both = len(clips[0] & clips[1])
        return (f"other held-out clips were tested ({len(clips[0])} in A, {len(clips[1])} in B, {both} in both): the "
                "benchmarks' numbers stand side by side, and no test is made")
    known = [{(row.clip_id, row.patient, getattr(row, "truth", ""), *getattr(row, "classes", ())) for row in part}
             for part in rows]
    if known[0] != known[1]:
        return "the same held-out clips are of other patients or classes, so no test is made"
    return "" if seeds else "the benchmarks have no seed in common, so no test is made"


def _by_key(rows: Sequence[Any], seeds: Sequence[int]) -> dict[Key, list[Any]]:
    found: dict[Key, list[Any]] = defaultdict(list)
    for row in rows:
        if row.seed in seeds:
            found[row.network, row.arm].append(row)
    return dict(found)


def _tested(module: Any, keys: Sequence[Key], cells: Sequence[dict[Key, list[Any]]],
            seeds: Sequence[int]) -> Tested:
    """Every (network, arm) is a network, and the two runs are its arms."""
    if not keys:
        return {}
    names = {key: str(number) for number, key in enumerate(keys)}
    rows = [replace(row, network=name, arm=run) for run, own in zip((FIRST, SECOND), cells, strict=True)
            for key, name in names.items() for row in own[key]]
    runs_as_arms = BenchmarkParams.model_construct(
        arms={run: ArmParams.model_validate({"real": True}) for run in (FIRST, SECOND)}, baseline=FIRST,
        networks=dict.fromkeys(names.values()), seeds=list(seeds), bootstrap=DRAWS,
        learned=math.inf)  # none counts as having learned: nothing is pooled over them
    found: Conclusion = module.conclude(rows, runs_as_arms)
    of_name = {name: key for key, name in names.items()}
    return {(*of_name[one["network"]], one["metric"]):
            ({"value": one["difference"], **{name: one[name] for name in ("low", "high", "p_holm")}}, one["verdict"])
            for one in found.comparisons}


def _rows(accounts: Sequence[BenchmarkAccount | None], tested: Tested, same: Collection[Key] = ()) -> list[Changed]:
    """Every metric that pages show, of every arm and network of either run."""
    cells = [{(network, arm, metric): one for network, arms in account.metrics.items() for arm, found in arms.items()
              for metric in account.shown if (one := found.get(metric))} if account else {} for account in accounts]
    rows = []
    for key in dict.fromkeys([*cells[0], *cells[1]]):
        network, arm, metric = key
        first, second = (own.get(key) for own in cells)
        alone = first is None or second is None
        untested = ALONE if alone else SAME if (network, arm) in same else UNTESTED
        rows.append(Changed(network, arm, metric, first, second, *tested.get(key, (None, untested))))
    return rows
