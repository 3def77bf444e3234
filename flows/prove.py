"""Does the synthetic set help? Every arm, network and seed, then the statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import counts
from flows.engine import engine
from flows.layout import Layout
from flows.steps import benchmark_run
from tasks.benchmark import plan_runs, summarise
from tasks.params import load_params


@flow(name="benchmark")
def benchmark(params: Path, data: Layout) -> dict[str, Any]:
    tree = load_params(params)
    wanted = tree.benchmark
    with engine(tree.engine.on_our_disk, 1) as where:
        runs = [
            where.submit(benchmark_run, run=run, params=wanted, prepared=data.prepared, clips=data.clips,
                         decisions=data.decisions, out=data.benchmark)
            for run in plan_runs(wanted)
        ]
        for run in runs:
            run.result()
    metrics = summarise(wanted, data.benchmark)
    counts("benchmark", metrics)
    return metrics
