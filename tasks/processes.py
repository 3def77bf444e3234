"""Train one generator in several processes of this machine, one for each GPU, under torch.distributed.

Not by `accelerate launch`: with --cpu it was seen to start one process where two were asked for, and to say nothing. What
torch.distributed starts is counted too, before any work.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from models.processes import refuse_others, together
from tasks.devices import visible_devices
from tasks.params import Entry
from tasks.train import train_generator


def train_together(processes: int, name: str, entry: Entry, seed: int, prepared: Path, out: Path) -> str:
    """`tasks.train.train_generator` by so many processes, which share out the batches of every step; returns the digest.

    Raises:
        ValueError: what the first process to fail said, or if there are fewer GPUs (but any), or if other than `processes` came
            together.
    """
    if (gpus := visible_devices()) != ["cpu"] and processes > len(gpus):
        raise ValueError(f"engine.processes: {processes}, but {len(gpus)} GPUs are visible; give at most one a GPU")
    try:
        digests: dict[int, str] = start(processes, _train, processes, name, entry, seed, prepared, out)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        said: Any = failure.message  # what `record` wrote down, or what became of the process
        raise ValueError(f"train {name}, process {rank} of {processes}: {said['message'] if isinstance(said, dict) else said}"
                         ) from None
    return digests[0]


def start(processes: int, function: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """Call a module's function in so many new processes that know of each other; what it returns, by rank."""
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their tracebacks of what the caller is told anyway
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, max_restarts=0,
                          rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1")
    found: dict[int, Any] = elastic_launch(config, function)(*arguments)
    return found


@record
def _train(processes: int, name: str, entry: Entry, seed: int, prepared: Path, out: Path) -> str:
    """What each process does."""
    _end_with_parent()
    refuse_others(processes)
    digest = train_generator(name, entry, seed, prepared, out)
    together().destroy_process_group()
    return digest


def _end_with_parent() -> None:
    """A killed stage is started again; its orphans must not write beside it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
