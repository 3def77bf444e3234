"""The process that keeps the run of a plain `dvc repro`: see `flows.repro`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.at_work import StageFailedError, reap, runs_below
from flows.repro import Repro
from flows.server import run_linked, server


@task(task_run_name="dvc repro", cache_policy=NO_CACHE, persist_result=False)
def follow_dvc(pid: int, note: Path) -> None:
    """Lasts as long as DVC; its stages link themselves to the run."""
    Repro(PREFECT_API_URL.value(), str(flow_run.id), os.getpid()).write(note)
    try:
        psutil.Process(pid).wait()
    except psutil.NoSuchProcess:
        pass
    finally:
        note.unlink()


@flow(name="factory", flow_run_name="{command}")
def follow(command: str, pid: int, note: Path) -> None:
    """DVC tells its exit status to its own parent only: this run has failed if a stage has."""
    follow_dvc(pid, note)
    reap()
    if failed := runs_below(flow_run.id, StateType.FAILED, StateType.CRASHED):
        raise StageFailedError("; ".join(f"{run.name}: {run.state.message if run.state else ''}" for run in failed))


def main(pid: int, note: Path, command: str) -> None:
    with server():
        run_linked(follow, command=command, pid=pid, note=note)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
