"""Precision, recall, density and coverage: the prdc package beside blocks of rows, in one run.

    python benchmarks/neighbours.py           8,000 real and 8,000 synthetic clips of 512 features, five rounds
    python benchmarks/neighbours.py --large   then 100,000 of each as well, ours alone: a matrix of the package's has 40 GB

Both give the same four numbers to 1e-4 or the run fails: the package decides in single precision, where a clip at the very edge
of a ball may fall on either side. Prints the median and the range of the paired ratios of processor time and of time on the
clock, and the peak memory that each adds, in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import platform
import re
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from prdc import compute_prdc
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.metrics.neighbours import NEAREST, neighbours

CLIPS, LARGE, FEATURES, ROUNDS = 8000, 100_000, 512, 5
Four = tuple[float, float, float, float]


def package(known: Tensor, made: Tensor) -> Four:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how many rows there are
        found = compute_prdc(known.numpy(), made.numpy(), NEAREST)
    return tuple(float(found[name]) for name in ("precision", "recall", "density", "coverage"))  # type: ignore[return-value]


def blocked(known: Tensor, made: Tensor) -> Four:
    near = neighbours(known, made)
    return (float((near.balls > 0).double().mean()), float(near.recalled.mean()), float(near.balls.mean() / NEAREST),
            float(near.covered.mean()))


WAYS = {"prdc": package, "blocked": blocked}


def sets(clips: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of few dimensions, as real ones are, in many."""
    rng = torch.Generator().manual_seed(seed)
    turn = torch.randn(12, FEATURES, generator=rng)
    known, made = torch.randn(2, clips, 12, generator=rng)
    return known @ turn, 0.9 * made @ turn


def added(name: str, clips: int) -> tuple[float, float]:
    """MiB of peak memory that one way adds to what the process has already, and its seconds; called in a fresh process."""
    known, made = sets(clips, 0)
    WAYS[name](known[:50], made[:50])
    before, start = peak(), time.perf_counter()
    WAYS[name](known, made)
    return peak() - before, time.perf_counter() - start


def peak() -> float:
    """MiB that this process had at most; `resource` would count its parent's as well."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help=f"{LARGE:,} clips as well, ours alone")
    large, write = parser.parse_args().large, sys.stdout.write
    write(f"Python {platform.python_version()}, torch {torch.__version__}, prdc {version('prdc')}, scikit-learn "
          f"{version('scikit-learn')}, threads {torch.get_num_threads()}\n")
    processor, clock = [], []
    for seed in range(ROUNDS):
        known, made = sets(CLIPS, seed)
        found, times = {}, {}
        for name, way in WAYS.items():
            start = time.process_time(), time.perf_counter()
            found[name] = way(known, made)
            times[name] = time.process_time() - start[0], time.perf_counter() - start[1]
        if not np.allclose(found["prdc"], found["blocked"], atol=1e-4):
            raise SystemExit(f"round {seed}: the numbers differ: {found}")
        processor.append(times["prdc"][0] / times["blocked"][0])
        clock.append(times["prdc"][1] / times["blocked"][1])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        memory = {name: pool.submit(added, name, CLIPS).result() for name in WAYS}
        write(f"n = {CLIPS}, {ROUNDS} rounds: " + ", ".join(f"{name} {seconds:.1f} s and {mib:.0f} MiB"
                                                           for name, (mib, seconds) in memory.items())
              + f"; prdc takes {spread(processor)} times the processor time and {spread(clock)} times the time\n")
        if large:
            mib, seconds = pool.submit(added, "blocked", LARGE).result()
            write(f"n = {LARGE}: blocked {seconds:.0f} s and {mib:.0f} MiB\n")


if __name__ == "__main__":
    main()
