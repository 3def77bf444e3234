"""Every prefect.task wrap: names, retries, devices. The work itself is plain functions in `tasks`.

Nothing here is cached by Prefect: DVC decides whether a stage runs, the store's commit records which shards are left.
Dask sends a task's body to its workers, so what a body needs of the worker's own process (devices, the lock) it takes from a
function of this module, which is sent by name.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import tasks.benchmark
import tasks.curate
import tasks.exchange
import tasks.sample
from flows.at_work import StageFailedError, end_tree
from flows.server import PARENT
from tasks.devices import use_threads, visible_devices
from tasks.params import BenchmarkParams, Entry

_devices: queue.SimpleQueue[str] = queue.SimpleQueue()
for _device in visible_devices():
    _devices.put(_device)
_alone = threading.Lock()


@contextmanager
def device() -> Iterator[str]:
    """One device to oneself; the next task waits for it. An in-process queue: Prefect's global limits cost seconds a task."""
    taken = _devices.get()
    try:
        yield taken
    finally:
        _devices.put(taken)


@contextmanager
def alone(threads: int) -> Iterator[None]:
    """For what uses the process's own random numbers, or all of its cores: a Dask worker may have several threads."""
    with _alone:
        use_threads(threads)
        yield


@task(task_run_name="{name} shard {shard}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def sample_shard(name: str, shard: int, checkpoint: Path, conditions: Path, out: Path, threads: int) -> tasks.sample.Made:
    with device() as own:
        use_threads(threads)
        return tasks.sample.sample_shard(shard, checkpoint, conditions, out, own)


@task(task_run_name="{name} shard {shard}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def sample_shard_at(name: str, shard: int, address: str, threads: int) -> tasks.sample.Made:
    with device() as own:
        use_threads(threads)
        return tasks.exchange.sample_shard_at(address, shard, own)


@task(task_run_name="{name} shard {shard}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def score_shard(name: str, shard: int, entry: Entry, clips: Path, critics: Path, out: Path, threads: int) -> None:
    with alone(threads):
        tasks.curate.score_shard(clips, shard, name, entry, critics, out)


@task(task_run_name="{run.arm} {run.network} seed {run.seed}", cache_policy=NO_CACHE, persist_result=False)
def benchmark_run(
    run: tasks.benchmark.Run, params: BenchmarkParams, prepared: Path, clips: Path, decisions: Path, out: Path, threads: int
) -> dict[str, Any]:
    with alone(threads):
        return tasks.benchmark.run_one(run, params, prepared, clips, decisions, out)


@task(task_run_name="dvc repro", cache_policy=NO_CACHE, persist_result=False)
def dvc_repro(targets: list[str]) -> None:
    """`dvc repro` with its output in this run's log; every stage it starts links itself to the run.

    Progress bars and errors go straight to the terminal; without one there are no bars, and errors are in the log as well.
    """
    logger = get_run_logger()
    command, environment = ["dvc", "repro", *targets], {**os.environ, PARENT: str(flow_run.id)}
    terminal = sys.stderr.isatty()
    process = subprocess.Popen(command, env=environment if terminal else {**environment, "TQDM_DISABLE": "1"}, text=True,
                               stdout=subprocess.PIPE, stderr=None if terminal else subprocess.STDOUT)
    assert process.stdout is not None  # PIPE above
    try:
        for line in process.stdout:
            typer.echo(line.rstrip())
            logger.info(line.rstrip())
    except BaseException:  # Ctrl-C reaches DVC and its stage by itself, SIGTERM does not
        end_tree(process.pid)
        raise
    if status := process.wait():
        raise StageFailedError(f"{' '.join(command)} ended with status {status}; the stage's own message is above")
