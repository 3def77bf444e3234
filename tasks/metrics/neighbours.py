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
    # a clip at exactly the ball's edge is outside, whatever the last bits of its distance say
    slack = _rounding(2 * max(rows.norm(dim=1).max() for rows in (known, made)), known.shape[1], torch.float64)
    of_known, of_made = (_radii(rows, nearest) - slack for rows in (known, made))
    edges, of_others = of_known[:, None].float(), of_made.float()
    balls = torch.zeros(len(made), dtype=torch.float64)
    # written to in place: what a block left behind in memory would keep the allocator from giving the block's own back
    covered, recalled, doubtful = (torch.zeros(len(known), dtype=torch.bool) for _ in range(3))
    for rows, away, doubt in _blocks(known, made):
        deepest = (away - of_others).amin(1)
        recalled[rows] = deepest < 0
        past = away.sub_(edges[rows])  # negative in a real clip's ball
        covered[rows] = past.amin(1) < 0
        # rows in which rounding could decide on which side of a ball's edge a clip is are looked at once more
        unsure = torch.minimum(deepest.abs(), past.abs().amin(1)) <= doubt
        doubtful[rows] = unsure
        past[unsure] = torch.inf
        balls += (past < 0).sum(0, dtype=torch.float32)
    for rows, away in _exact_blocks(known, doubtful.nonzero()[:, 0], made):
        balls += (near := away < of_known[rows, None]).sum(0)
        covered[rows], recalled[rows] = near.any(1), (away < of_made).any(1)
    return Neighbours(balls, covered.double(), recalled.double())


def _radii(features: Tensor, nearest: int) -> Tensor:
    """(N,) squared distance to the k-th nearest other row."""
    found = torch.empty(len(features), dtype=torch.float64)
    doubtful = torch.zeros(len(features), dtype=torch.bool)
    for rows, away, doubt in _blocks(features, features):
        away[torch.arange(len(rows)), rows] = torch.inf
        values, places = away.topk(nearest + 1, 1, largest=False)  # in a quarter of kthvalue's time
        apart = features[rows] - features[places[:, nearest - 1]]
        found[rows] = torch.linalg.vecdot(apart, apart)
        # where rounding may have put another one in the k-th place
        doubtful[rows] = (values.diff(dim=1)[:, nearest - 2 :] <= 2 * doubt).any(1)
    for rows, away in _exact_blocks(features, doubtful.nonzero()[:, 0], features):
        away[torch.arange(len(rows)), rows] = torch.inf
        found[rows] = away.topk(nearest, 1, largest=False).values[:, -1]
    return found


def _blocks(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Squared distances of some rows to all of `second` at a time, in single precision, several times as fast as in double:
    (rows, distances (R, M), bound of what rounding may have done to any of them).

    One product makes them, with no further look at the whole: [-2 x, |x|^2, 1] [y, 1, |y|^2].
    """
    one, two = (torch.ones(len(rows), rows.shape[1] + 2) for rows in (first, second))
    lengths, others = first.norm(dim=1), second.norm(dim=1)
    one[:, :-2], one[:, -2] = -2 * first, lengths.square()
    two[:, :-2], two[:, -1] = second, others.square()
    for rows in torch.arange(len(first)).split(BLOCK):
        yield rows, one[rows] @ two.mT, float(_rounding(lengths[rows].max() + others.max(), one.shape[1], one.dtype))


def _exact_blocks(first: Tensor, wanted: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, distances) of the wanted rows of `first` in double precision, a block of them at a time."""
    squares = second.square().sum(1)
    for rows in wanted.split(BLOCK):
        yield rows, torch.addmm(squares, first[rows], second.mT, alpha=-2) + first[rows].square().sum(1, keepdim=True)


def _rounding(lengths: Tensor, width: int, kind: torch.dtype) -> Tensor:
    """What rounding may do to a squared distance of rows whose lengths have this sum: 8 sqrt(n) u times its square, all but
    certain (Higham and Mary, SIAM J. Sci. Comput. 2019); the certain bound, n u, doubts many rows more."""
    return lengths.square() * (4 * width**0.5 * torch.finfo(kind).eps)
