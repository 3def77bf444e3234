"""The processes that train together: those torch.distributed started, or this one alone."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState


def on_cpus() -> bool:
    """Whether several processes train without GPUs; accelerate must be told, or each takes itself for the only one."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def together() -> PartialState:
    """How many there are, which of them this is, and `wait_for_everyone`."""
    return PartialState(cpu=on_cpus())


def refuse_others(processes: int) -> None:
    """Raise ValueError unless so many train together: a wrong start is silent otherwise, and the training one of fewer."""
    if (found := together().num_processes) != processes:
        raise ValueError(f"engine.processes: {processes} processes were to train together, but {found} came; start them with "
                         "`cinefab train`, and unset WORLD_SIZE, RANK and LOCAL_RANK before")
