"""Does the synthetic set help? Every arm, network and seed, then the statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import benchmark_table, wait_for
from flows.layout import Layout
from flows.steps import benchmark_run
from tasks.account import read_benchmark
from tasks.benchmark import plan_runs, summarise
from tasks.params import load_params


@flow(name="benchmark", flow_run_name="benchmark", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def benchmark(params: Path, data: Layout) -> dict[str, Any]:
    wanted = load_params(params).benchmark
    runs = [
        benchmark_run.submit(run, wanted, data.prepared, data.clips, data.decisions, data.benchmark)
        for run in plan_runs(wanted)
    ]
    wait_for("benchmark-progress", "trainings", runs)
    metrics = summarise(wanted, data.benchmark)
    if (found := read_benchmark(data.benchmark)) is not None:
        benchmark_table("benchmark", found)
    return metrics
