"""Which devices there are to work on, and how many threads share one operation on a CPU."""

from __future__ import annotations

import torch


def visible_devices() -> list[str]:
    """Every visible GPU, or the CPU once: its cores already share one operation."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def first_device() -> str:
    """The first GPU, or the CPU: for work that one device does, such as looking at clips with critics and extractors."""
    return visible_devices()[0]


def compute_threads() -> int:
    """Threads that one operation is shared by in this process: OMP_NUM_THREADS, or the cores there are."""
    return torch.get_num_threads()


def use_threads(threads: int) -> None:
    """Compute with so many from now on: another number gives sums other last bits, and a rounded pixel another value."""
    torch.set_num_threads(threads)
