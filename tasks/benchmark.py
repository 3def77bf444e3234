"""Every arm, network and seed of the benchmark, each done once, and what they say together.

A run is its rows (`runs/<arm>/<network>/<seed>.parquet`) and, written after them, its record (`.json`) with the fingerprint
of what went in. A run without a whole record, with another fingerprint or with other rows than the record's is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models import plugin
from tasks.benchmarks import Conclusion, Outcome, Run
from tasks.comparisons import POOLED
from tasks.curate import chain_folder
from tasks.fingerprint import fingerprint
from tasks.params import BenchmarkParams
from tasks.store import ClipStore
from tasks.tables import atomic_write, file_digest, read_sealed, read_table, write_json, write_sealed, write_table

CURVE_POINTS = 100
"""Points of a run's curve: longer runs are averaged over equal windows."""


def plan_runs(benchmark: BenchmarkParams) -> list[Run]:
    """Every run, seed by seed, so that a stopped benchmark has whole seeds.

    Raises:
        ValueError: if a network has a name that metrics.json gives to something else.
    """
    if taken := {"counts", POOLED} & set(benchmark.networks):
        raise ValueError(f"benchmark.networks: {', '.join(sorted(taken))} has a meaning of its own in metrics.json; rename it")
    return [Run(arm, network, seed) for seed in benchmark.seeds for network in benchmark.networks for arm in benchmark.arms]


def run_one(run: Run, benchmark: BenchmarkParams, prepared: Path, clips: Path, decisions: Path, out: Path) -> dict[str, Any]:
    """Do one run unless it is done.

    Args:
        prepared: the prepared data set; clips, decisions: folders with one folder a synthetic set.
        out: the benchmark's folder.

    Returns:
        The run's names, its numbers of clips and its headline, None if the arm had nothing to train on.
    """
    arm = benchmark.arms[run.arm]
    synthetic = clips / arm.synthetic if arm.synthetic is not None else None
    judged = chain_folder(decisions / arm.synthetic, arm.filters) if arm.synthetic is not None and arm.filtered else None
    mark = fingerprint(
        "benchmark", benchmark.kind, run.arm, run.network, run.seed, arm.model_dump(),
        benchmark.networks[run.network].model_dump(), benchmark.distance_on, benchmark.empty_distance, benchmark.tested_on,
        ClipStore.open(prepared / "clips.zarr").digest, file_digest(prepared / "manifest.parquet"),
        file_digest(prepared / "summary.json"),
        [ClipStore.open(synthetic / "clips.zarr").digest, file_digest(synthetic / "provenance.parquet")] if synthetic else None,
        file_digest(judged / "decisions.parquet") if judged else None,
    )
    rows_path, record_path = _paths(out, run)
    record = _record(rows_path, record_path)
    if record is None or record["fingerprint"] != mark:
        record_path.unlink(missing_ok=True)
        module = plugin.load("tasks.benchmarks", benchmark.kind)
        outcome: Outcome = module.evaluate(run, benchmark, prepared, synthetic, judged)
        rows_path.parent.mkdir(parents=True, exist_ok=True)
        write_table(rows_path, outcome.rows, module.ROW)
        facts = {"arm": run.arm, "network": run.network, "seed": run.seed, **module.headline(outcome.rows), **outcome.facts}
        record = {"fingerprint": mark, "rows": file_digest(rows_path), "losses": outcome.losses, "facts": facts}
        write_sealed(record_path, record)
    return dict(record["facts"])


def summarise(benchmark: BenchmarkParams, out: Path) -> dict[str, Any]:
    """Put all runs together; returns what goes to metrics.json.

    Writes `runs.parquet` (every row), `metrics.json` ({network: {arm: {metric: {mean, low, high, ...}}}} and "counts"),
    `comparisons.json` (each arm against the baseline, by network and pooled), `verdict.json` (one plain sentence) and
    `curves.csv`. Files of runs that are no longer planned are removed, so the folder depends on the parameters alone.

    Arms whose set the chain emptied have no rows; the verdict names them.

    Raises:
        ValueError: if a run is missing, or the chain emptied the baseline.
    """
    runs = plan_runs(benchmark)
    records = {run: _record(*_paths(out, run)) for run in runs}
    if missing := [run for run, record in records.items() if record is None]:
        raise ValueError(f"{out}: {len(missing)} of {len(runs)} runs are missing, the first is {missing[0]}; run it again")
    _sweep(out, runs)
    module = plugin.load("tasks.benchmarks", benchmark.kind)
    rows = [row for run in runs for row in read_table(_paths(out, run)[0], module.ROW)]
    if not any(row.arm == benchmark.baseline for row in rows):
        raise ValueError(f"benchmark.baseline: the chain kept no clip for {benchmark.baseline}, so nothing can be compared; "
                         "loosen a filter or set filtered: false for this arm")
    found: Conclusion = module.conclude(rows, benchmark)
    write_table(out / "runs.parquet", rows, module.ROW)
    write_json(out / "metrics.json", found.metrics)
    write_json(out / "comparisons.json", found.comparisons)
    write_json(out / "verdict.json", found.verdict)
    losses = {run: record["losses"] for run, record in records.items() if record is not None}
    atomic_write(out / "curves.csv", _curves(losses).encode())
    return found.metrics


def _paths(out: Path, run: Run) -> tuple[Path, Path]:
    folder = out / "runs" / run.arm / run.network
    return folder / f"{run.seed}.parquet", folder / f"{run.seed}.json"


def _record(rows_path: Path, record_path: Path) -> dict[str, Any] | None:
    """The run's record, if it is whole and its rows are those it was written for."""
    if not (record_path.exists() and rows_path.exists()):
        return None
    try:
        record = read_sealed(record_path)
    except ValueError:
        return None
    return record if record["rows"] == file_digest(rows_path) else None


def _sweep(out: Path, runs: Sequence[Run]) -> None:
    wanted = {path for run in runs for path in _paths(out, run)}
    for path in sorted((out / "runs").rglob("*"), reverse=True):  # what a folder holds comes before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def _curves(losses: dict[Run, list[float]]) -> str:
    """CSV of at most `CURVE_POINTS` rows a run: the mean loss of each window, at the window's last step."""
    lines = ["arm,network,seed,step,loss"]
    for run, values in losses.items():
        window = max(1, -(-len(values) // CURVE_POINTS))
        for start in range(0, len(values), window):
            part = values[start : start + window]
            lines.append(f"{run.arm},{run.network},{run.seed},{start + len(part)},{sum(part) / len(part):.6g}")
    return "\n".join(lines) + "\n"
