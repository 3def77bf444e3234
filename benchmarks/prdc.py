"""Precision, recall, density and coverage: whole distance matrices, as the prdc package makes them, against blocks of rows.

    python benchmarks/prdc.py

2,000 real and 2,000 synthetic clips of 512 features. Both give the same four numbers to 1e-5 or the run fails. Prints the
median of the paired ratios of time, and the peak memory that each adds, in a process of its own (Linux).
"""

from __future__ import annotations

import multiprocessing
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.metrics import pairwise_distances
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.metrics.neighbours import NEAREST, neighbours

CLIPS, FEATURES, ROUNDS = 2000, 512, 5
Four = tuple[float, float, float, float]


def whole(known: Tensor, made: Tensor) -> Four:
    """prdc 0.2's way (Naeem et al., MIT): three matrices of all pairs, each held whole."""
    real, own = known.numpy(), made.numpy()
    radii = [np.partition(pairwise_distances(rows), NEAREST, 1)[:, NEAREST] for rows in (real, own)]
    away = pairwise_distances(real, own)
    inside = away < radii[0][:, None]
    return (float(inside.any(0).mean()), float((away < radii[1]).any(1).mean()), float(inside.sum(0).mean() / NEAREST),
            float((away.min(1) < radii[0]).mean()))


def blocked(known: Tensor, made: Tensor) -> Four:
    near = neighbours(known, made)
    return (float((near.balls > 0).double().mean()), float(near.recalled.mean()), float(near.balls.mean() / NEAREST),
            float(near.covered.mean()))


WAYS = {"whole": whole, "blocked": blocked}


def sets(seed: int) -> tuple[Tensor, Tensor]:
    """Features of few dimensions, as real ones are, in many."""
    rng = torch.Generator().manual_seed(seed)
    turn = torch.randn(12, FEATURES, generator=rng)
    known, made = torch.randn(2, CLIPS, 12, generator=rng)
    return known @ turn, 0.9 * made @ turn


def added(name: str) -> float:
    """MiB of peak memory that one way adds to what the process has already; called in a fresh process."""
    known, made = sets(0)
    WAYS[name](known[:50], made[:50])
    before = peak()
    WAYS[name](known, made)
    return peak() - before


def peak() -> float:
    """MiB that this process had at most; `resource` would count its parent's as well."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def main() -> None:
    write, times = sys.stdout.write, {name: [] for name in WAYS}
    write(f"Python {platform.python_version()}, torch {torch.__version__}, scikit-learn {sklearn.__version__}, "
          f"threads {torch.get_num_threads()}\n")
    for seed in range(ROUNDS):
        known, made = sets(seed)
        found = {}
        for name, way in WAYS.items():
            start = time.perf_counter()
            found[name] = way(known, made)
            times[name].append(time.perf_counter() - start)
        if not np.allclose(found["whole"], found["blocked"], atol=1e-5):
            raise SystemExit(f"round {seed}: the numbers differ: {found}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {name: pool.apply(added, (name,)) for name in WAYS}
    ratio = statistics.median(one / other for one, other in zip(times["whole"], times["blocked"], strict=True))
    write(f"n = {CLIPS}, {ROUNDS} x: " + ", ".join(f"{name} {statistics.median(times[name]):.2f} s and {memory[name]:.0f} MiB"
                                                   for name in WAYS) + f", ratio of times {ratio:.1f}\n")


if __name__ == "__main__":
    main()
