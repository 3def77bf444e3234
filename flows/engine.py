"""Where the tasks of a stage run: threads of this process, or workers of a Dask cluster on this machine or on others.

The tasks are the same, and so are their bytes: what a task does depends on its arguments and on the files they name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.devices import compute_threads, visible_devices
from tasks.params import EngineParams


@dataclass(frozen=True)
class Engine:
    """Takes tasks. `workers` is how many of them run at a time, as far as devices go."""

    runner: TaskRunner[Any]
    workers: int

    def submit(self, work: Task[..., Any], **arguments: Any) -> PrefectFuture[Any]:
        """Tasks of `flows.steps` that compute take `threads`, so that every worker has as many as this process."""
        return self.runner.submit(work, {**arguments, "threads": compute_threads()})


@contextmanager
def engine(params: EngineParams, threads: int) -> Iterator[Engine]:
    """What `params` asks for, inside a flow's run; its tasks have ended when the block does.

    Args:
        threads: tasks at a time if it is threads.

    Raises:
        ValueError: for dask if its extra is not installed, or its local workers would share a GPU.
    """
    if params.kind == "threads":
        with ThreadPoolTaskRunner(max_workers=threads) as runner:  # type: ignore[var-annotated]
            yield Engine(runner, threads)
        return
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ValueError("engine.kind: dask needs its extra; pip install 'cinefab[dask]'") from None
    if params.address is not None:
        chosen = DaskTaskRunner(address=params.address)
    elif visible_devices() == ["cpu"]:
        chosen = DaskTaskRunner(cluster_kwargs={"n_workers": params.workers, "threads_per_worker": 1,
                                                "dashboard_address": None})  # Prefect's pages show the run
    else:
        raise ValueError("engine.kind: dask would start workers here that share one GPU; give engine.address, or take threads, "
                         "which use every GPU of this machine")
    with chosen as runner:
        yield Engine(runner, sum(runner.client.nthreads().values()))
