"""Whether synthetic clips lie among the real ones and reach all of them, by nearest neighbours.

Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020). Every clip has a ball
that reaches to its k-th nearest neighbour in its own set, itself not counted; another clip is in it if it is nearer than that.
Distances are made in blocks of rows, so memory grows with the number of clips, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    known, made = (rows.double() - known.double().mean(0) for rows in (known, made))
    of_known, of_made = _radii(known, nearest), _radii(made, nearest)
    balls = torch.zeros(len(made), dtype=torch.float64)
    covered, recalled = [], []
    for rows, away, doubt in _blocks(known, made):
        edges = of_known[rows, None], of_made
        # one more look at rows in which rounding could decide on which side of a ball's edge a clip is
        nearest_edge = torch.minimum(*(away.sub(edge.float()).abs_().amin(1) for edge in edges))
        inside, of_others = (away < edge.float() for edge in edges)
        if len(unsure := (nearest_edge <= doubt).nonzero()[:, 0]):
            exact = _squared(known[rows[unsure]], made)
            inside[unsure], of_others[unsure] = exact < edges[0][unsure], exact < edges[1]
        balls += inside.float().sum(0)
        covered.append(inside.any(1))
        recalled.append(of_others.any(1))
    return Neighbours(balls, torch.cat(covered).double(), torch.cat(recalled).double())


def _radii(features: Tensor, nearest: int) -> Tensor:
    """(N,) squared distance to the k-th nearest other row, a rounding error less."""
    found = []
    for rows, away, doubt in _blocks(features, features):
        away[torch.arange(len(rows)), rows] = torch.inf
        values, places = away.topk(nearest + 1, 1, largest=False)  # in a quarter of kthvalue's time
        exact = (features[rows] - features[places[:, nearest - 1]]).square().sum(1)
        # where rounding may have put another one in the k-th place, the whole row again
        if len(unsure := (values.diff(dim=1)[:, nearest - 2 :] <= 2 * doubt).any(1).nonzero()[:, 0]):
            whole = _squared(features[rows[unsure]], features)
            whole[torch.arange(len(unsure)), rows[unsure]] = torch.inf
            exact[unsure] = whole.topk(nearest, 1, largest=False).values[:, -1]
        found.append(exact)
    return torch.cat(found) * _ROUNDING


def _blocks(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Squared distances of some rows to all of `second` at a time, in single precision, several times as fast as in double:
    (rows, distances (R, M), bound of what rounding may have done to any of them)."""
    one, two = _factors(first, second)
    one, two = one.float(), two.float()
    lengths, longest = first.norm(dim=1), second.norm(dim=1).max()
    # 8 sqrt(n) u: all but certain (Higham and Mary, SIAM J. Sci. Comput. 2019); the certain bound, n u, doubts many rows more
    bound = 8 * one.shape[1] ** 0.5 * torch.finfo(torch.float32).eps / 2
    for rows in torch.arange(len(first)).split(BLOCK):
        yield rows, one[rows] @ two.mT, float(bound * (lengths[rows].max() + longest) ** 2)


def _squared(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) squared distances of rows."""
    one, two = _factors(first, second)
    return one @ two.mT


def _factors(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """What one product makes squared distances of: |x|^2 - 2 x y + |y|^2, with no further look at the whole matrix."""
    one, two = (torch.ones(len(rows), 1, dtype=rows.dtype) for rows in (first, second))
    return (torch.cat([-2 * first, first.square().sum(1, keepdim=True), one], 1),
            torch.cat([second, two, second.square().sum(1, keepdim=True)], 1))
