"""Fréchet distance of two sets of features, each taken for a Gaussian (Dowson & Landau 1982; FID is this with Inception's)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of means (..., D) and covariances (..., D, D) that broadcast -> (...).

    The trace of the root is that of the symmetric C1^(1/2) C2 C1^(1/2), which has the same eigenvalues and never complex ones.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors @ (values.clamp_min(0).sqrt()[..., None] * vectors.mT)
    shared = torch.linalg.eigvalsh(root @ cov2 @ root).clamp_min(0).sqrt().sum(-1)
    trace = (cov1.diagonal(dim1=-2, dim2=-1) + cov2.diagonal(dim1=-2, dim2=-1)).sum(-1)
    return (mean1 - mean2).square().sum(-1) + trace - 2 * shared


def frechet_of_features(known: Tensor, made: Tensor, weights: Tensor | None = None) -> Tensor:
    """Fréchet distance of features (N, D) and (M, D), N and M at least 2: (W,) for (W, M) weights, how often each row of `made`
    is taken, as it is (1,) without.

    With no more rows than features the covariances are singular; the trace of their root is then found from the rows
    themselves, in less time and memory, and weights are not taken.

    Raises:
        ValueError: for weights with min(N, M) <= D.
    """
    known, made = known.double(), made.double()
    if min(len(known), len(made)) > known.shape[1]:
        every = torch.ones(1, len(made), dtype=torch.float64) if weights is None else weights.double()
        return frechet_distance(_gaussian(known, torch.ones(1, len(known), dtype=torch.float64)), _gaussian(made, every))
    if weights is not None:
        raise ValueError(f"{len(known)} and {len(made)} clips of {known.shape[1]} features: too few to be drawn from again")
    first, second = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (known, made))
    shared = torch.linalg.svdvals(first @ second.mT).sum()  # nuclear norm: tr (C1 C2)^(1/2)
    distance = (known.mean(0) - made.mean(0)).square().sum() + first.square().sum() + second.square().sum() - 2 * shared
    return distance[None]


def _gaussian(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means (W, D) and covariances (W, D, D; divisor n - 1) of rows (N, D) taken as often as (W, N) weights say."""
    count = weights.sum(1)
    mean = weights @ features / count[:, None]
    outer = torch.stack([(features * one[:, None]).mT @ features for one in weights])
    return mean, (outer - count[:, None, None] * mean[:, :, None] * mean[:, None]) / (count[:, None, None] - 1)
