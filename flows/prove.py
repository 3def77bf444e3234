"""Does the synthetic set help? Every arm, network and seed, then the statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import benchmark_table, in_turn
from flows.engine import engine
from flows.layout import Layout
from flows.steps import benchmark_run
from tasks.account import read_benchmark
from tasks.benchmark import plan_runs, summarise
from tasks.ledger import writing
from tasks.params import load_params


@flow(name="benchmark", flow_run_name="benchmark")
def benchmark(params: Path, data: Layout) -> dict[str, Any]:
    tree = load_params(params)
    wanted = tree.benchmark
    with writing(data.benchmark), engine(tree.engine.on_our_disk, 1) as where:
        runs = [
            where.submit(benchmark_run, run=run, params=wanted, prepared=data.prepared, clips=data.clips,
                         decisions=data.decisions, out=data.benchmark)
            for run in plan_runs(wanted)
        ]
        list(in_turn("benchmark-progress", "trainings", runs))
        metrics = summarise(wanted, data.benchmark)
    if (found := read_benchmark(data.benchmark)) is not None:
        benchmark_table("benchmark", found)
    return metrics
