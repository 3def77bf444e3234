"""Whether synthetic clips lie among the real ones and reach all of them, by nearest neighbours.

Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020). Every clip has a ball
that reaches to its k-th nearest neighbour in its own set, itself not counted; another clip is in it if it is nearer than that.
Distances are made in blocks of rows, so memory grows with the number of clips, not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST = 5
"""k of all four."""

BLOCK = 256
"""Rows of distances in memory at a time."""

_ROUNDING = 1 - 1e-9
"""Of squared radii: a clip at exactly the ball's edge is outside, whatever the last bit of its distance says."""


@dataclass(frozen=True)
class Neighbours:
    """What all four are means of, clip by clip, so that a resample of clips needs no distance again.

    Attributes:
        balls: (M,) of every synthetic clip, how many real balls it is in, float64.
        covered: (N,) of every real clip, 1 if a synthetic one is in its ball, else 0.
        recalled: (N,) of every real clip, 1 if it is in a synthetic clip's ball, else 0.
    """

    balls: Tensor
    covered: Tensor
    recalled: Tensor


def neighbours(known: Tensor, made: Tensor, nearest: int = NEAREST) -> Neighbours:
    """Of real (N, D) and synthetic (M, D) features.

    Raises:
        ValueError: unless both have more than `nearest` rows.
    """
    if min(len(known), len(made)) <= nearest:
        raise ValueError(f"{len(known)} and {len(made)} clips have no {nearest} neighbours each; give more than {nearest}")
    centre = known.double().mean(0)
    known, made = known.double() - centre, made.double() - centre
    of_known, of_made = _radii(known, nearest), _radii(made, nearest)
    balls = torch.zeros(len(made), dtype=torch.float64)
    covered, recalled = [], []
    for rows in torch.arange(len(known)).split(BLOCK):
        away = _squared(known[rows], made)
        inside = away < of_known[rows, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((away < of_made).any(1))
    return Neighbours(balls, torch.cat(covered).double(), torch.cat(recalled).double())


def _radii(features: Tensor, nearest: int) -> Tensor:
    """(N,) squared distance to the k-th nearest other row, a rounding error less."""
    found = []
    for rows in torch.arange(len(features)).split(BLOCK):
        away = _squared(features[rows], features)
        away[torch.arange(len(rows)), rows] = torch.inf
        found.append(away.topk(nearest, 1, largest=False).values[:, -1])  # in a quarter of kthvalue's time
    return torch.cat(found) * _ROUNDING


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) squared distances of rows."""
    away = torch.addmm(second.square().sum(1)[None], first, second.mT, alpha=-2)
    return away.add_(first.square().sum(1)[:, None]).clamp_min_(0)
