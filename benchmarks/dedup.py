"""Similarity filter: Algorithm 1's double loop against the blocked matrix products, side by side in one run.

    python benchmarks/dedup.py

One group of clips, latents of 8 frames x 4 x 6 x 6 with a third of them planted near-duplicates, threshold 98 %. Both keep
the same clips or the run fails. Prints the median of the paired ratios. Then a group of 10,000, ours alone; if there is a GPU,
on the first one too, which must keep the same.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.devices import first_device
from tasks.filters.similarity import embed, greedy

SHAPE = (8, 4, 6, 6)
THRESHOLD = 98.0
SIZES = {300: 5, 1000: 1}
"""Clips in the group: repetitions."""
SMALL, LARGE = 600, 10_000


def naive(latents: Tensor) -> list[bool]:
    """Every clip against every clip kept before, frame by frame, as the algorithm is printed (and in percent)."""
    kept: list[int] = []
    verdicts = []
    for number, clip in enumerate(latents):
        keep = True
        for other in kept:
            cosines = [functional.cosine_similarity(one.flatten(), two.flatten(), dim=0)
                       for one, two in zip(clip, latents[other], strict=True)]
            if 100 * torch.stack(cosines).mean() >= THRESHOLD:
                keep = False
                break
        verdicts.append(keep)
        if keep:
            kept.append(number)
    return verdicts


def planted(count: int, seed: int) -> Tensor:
    """Random latents; every third is an earlier one with little noise."""
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, *SHAPE, generator=rng)
    for number in range(3, count, 3):
        source = int(torch.randint(number, (1,), generator=rng))
        latents[number] = latents[source] + 0.05 * torch.randn(SHAPE, generator=rng)
    return latents


def main() -> None:
    write = sys.stdout.write
    write(f"Python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}\n")
    for count, repetitions in SIZES.items():
        ratios, ours, theirs = [], [], []
        for repetition in range(repetitions):
            latents = planted(count, repetition)
            start = time.perf_counter()
            kept = greedy(embed(latents), THRESHOLD)[0].tolist()
            middle = time.perf_counter()
            expected = naive(latents)
            end = time.perf_counter()
            if kept != expected:
                raise SystemExit(f"n = {count}: the kept sets differ")
            ours.append(middle - start)
            theirs.append(end - middle)
            ratios.append(theirs[-1] / ours[-1])
        write(f"n = {count}, {repetitions} x, {sum(kept)} kept: naive {statistics.median(theirs):.2f} s, blocked "
              f"{statistics.median(ours):.4f} s, ratio {statistics.median(ratios):.0f}\n")
    vectors, kept = embed(planted(LARGE, 0)), []
    for device in dict.fromkeys(("cpu", first_device())):
        greedy(vectors[:SMALL].to(device), THRESHOLD)
        start = time.perf_counter()
        kept.append(greedy(vectors.to(device), THRESHOLD)[0].tolist())
        name = device if device == "cpu" else torch.cuda.get_device_name(device)
        write(f"n = {LARGE}, {sum(kept[-1])} kept: blocked {time.perf_counter() - start:.3f} s, {name}\n")
    if kept[0] != kept[-1]:
        raise SystemExit(f"n = {LARGE}: the GPU keeps other clips")


if __name__ == "__main__":
    main()
