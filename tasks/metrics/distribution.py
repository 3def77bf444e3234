"""Every distance between a real and a synthetic set of clips: what it says, which way is nearer, how many clips it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tasks.metrics.discrepancy import cmmd, kid
from tasks.metrics.frechet import frechet_of_features
from tasks.metrics.neighbours import NEAREST, Neighbours, neighbours


@dataclass(frozen=True)
class DistributionMetric:
    """One metric in data.

    Attributes:
        direction: which way is nearer to the real clips.
        span: lowest and highest value there is; None: no end.
        what: in one sentence.
        drawn: whose clips the interval draws, "synthetic" or "real": of a mean over clips those it is over.
        refused: a set of this many clips or fewer has no value.
        wanted: clips a set needs, given the number of features; with fewer the value is flagged.
        why: what is wrong with fewer.
    """

    direction: Literal["lower is nearer", "higher is nearer"]
    span: tuple[float | None, float | None]
    what: str
    drawn: Literal["synthetic", "real"]
    refused: int
    wanted: Callable[[int], int]
    why: str


def _few(_: int) -> int:
    return 10 * NEAREST + 1


_RANDOM = "balls of so few clips are chance"
METRICS: dict[str, DistributionMetric] = {
    "frechet": DistributionMetric(
        "lower is nearer", (0, None), "Fréchet distance: how far means and covariances are apart", "synthetic", 1,
        lambda features: features + 1, "covariances are rank-deficient, so the value is too high and has no interval"),
    "kid": DistributionMetric(
        "lower is nearer", (None, None), "kernel distance (KID's, unbiased): 0 on average for clips of one distribution, "
        "however few", "synthetic", 1, lambda _: 2, ""),
    "cmmd": DistributionMetric(
        "lower is nearer", (0, None), "1000 times the kernel distance with CMMD's kernel, in these features (CMMD's: CLIP's)",
        "synthetic", 1, lambda _: 100, "it is biased: too high by up to 20 / n for each set of n clips"),
    "precision": DistributionMetric(
        "higher is nearer", (0, 1), "share of synthetic clips that lie among the real ones: are they plausible?", "synthetic",
        NEAREST, _few, _RANDOM),
    "recall": DistributionMetric(
        "higher is nearer", (0, 1), "share of real clips that lie among the synthetic ones: is all variety there?", "real",
        NEAREST, _few, _RANDOM),
    "density": DistributionMetric(
        "higher is nearer", (0, None), "how many real neighbourhoods a synthetic clip is in, against k: 1 on average for clips "
        "of one distribution, higher where they crowd", "synthetic", NEAREST, _few, _RANDOM),
    "coverage": DistributionMetric(
        "higher is nearer", (0, 1), "share of real clips with a synthetic one in their neighbourhood: is any kind left out?",
        "real", NEAREST, _few, _RANDOM),
}


def flags(metric: str, sizes: Mapping[str, int], features: int) -> list[str]:
    """What makes a value doubtful, given how many clips every set has: [] if nothing does."""
    one = METRICS[metric]
    refused = [f"refused: {number} {name} clips, needs more than {one.refused}"
               for name, number in sizes.items() if number <= one.refused]
    few = [f"{number} {name} clips, needs {one.wanted(features)}: {one.why}"
           for name, number in sizes.items() if one.refused < number < one.wanted(features)]
    return refused + few


def compare(known: Tensor, made: Tensor) -> dict[str, Tensor]:
    """(1,) of every metric that is not refused, of real and synthetic clips as they are.

    Args:
        known, made: (N, P, D) and (M, P, D): D features at each of P places in a clip (1: of the whole clip). Places are
            compared one by one and averaged: pooled, a set whose clips flicker from picture to picture would have many times
            more different frames than one whose clips hold together, and be nearer for that alone.
    """
    return _measured(known, made, None)


def resampled(known: Tensor, made: Tensor, of_known: Tensor, of_made: Tensor) -> dict[str, Tensor]:
    """(W,) of every metric that has an interval, for (W, N) and (W, M) weights: how often each clip is drawn.

    No neighbour is looked for again. A metric draws the clips its `drawn` names and takes the other set as it is.
    """
    return _measured(known, made, (of_known, of_made))


def _measured(known: Tensor, made: Tensor, weights: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    places = [_one(real, own, weights) for real, own in zip(known.unbind(1), made.unbind(1), strict=True)]
    return {name: torch.stack([place[name] for place in places]).mean(0) for name in places[0]}


def _one(known: Tensor, made: Tensor, weights: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    fewest, found = min(len(known), len(made)), {}
    of_known, of_made = weights or tuple(torch.ones(1, len(one), dtype=torch.float64) for one in (known, made))
    if fewest > (known.shape[1] if weights else METRICS["frechet"].refused):
        found["frechet"] = frechet_of_features(known, made, of_made if weights else None)
    if fewest > METRICS["kid"].refused:
        found |= {"kid": kid(known, made, of_made), "cmmd": cmmd(known, made, of_made)}
    if fewest > NEAREST:
        found |= _shares(neighbours(known, made), of_known.double(), of_made.double())
    return found


def _shares(near: Neighbours, of_known: Tensor, of_made: Tensor) -> dict[str, Tensor]:
    made, known = of_made.sum(1), of_known.sum(1)
    return {"precision": of_made @ (near.balls > 0).double() / made, "density": of_made @ near.balls / (NEAREST * made),
            "recall": of_known @ near.recalled / known, "coverage": of_known @ near.covered / known}
