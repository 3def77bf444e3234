"""Maximum mean discrepancy of two sets of features (Gretton et al., JMLR 2012), with the kernels of KID and of CMMD.

Kernels are made in blocks of rows, so memory grows with the number of clips, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(N, D) and (M, D) -> (N, M)."""

BLOCK = 1024
"""Rows of a kernel in memory at a time."""


def polynomial(first: Tensor, second: Tensor) -> Tensor:
    """(x y / D + 1)^3, of KID (Binkowski et al., ICLR 2018)."""
    return (first @ second.mT / first.shape[1] + 1) ** 3


def gaussian(first: Tensor, second: Tensor, sigma: float = 10.0) -> Tensor:
    """exp(-|x - y|^2 / (2 sigma^2)) of unit rows, of CMMD (Jayasumana et al., CVPR 2024)."""
    return torch.exp((first @ second.mT - 1) / sigma**2)


def kid(known: Tensor, made: Tensor, weights: Tensor) -> Tensor:
    """Unbiased MMD^2 with the polynomial kernel; KVD where features are of clips. About 0 for one distribution, or below.

    Args:
        known, made: (N, D) and (M, D), N and M at least 2.
        weights: (W, M), how often each row of `made` is taken. A pair of one row with itself does not count, however often
            it is taken: it would make every resample look less varied than the set is.

    Returns:
        (W,) float64.
    """
    return _mmd(known.double(), made.double(), weights.double(), polynomial, unbiased=True)


def cmmd(known: Tensor, made: Tensor, weights: Tensor) -> Tensor:
    """1000 times the biased MMD^2 of unit features with the Gaussian kernel: (W,) float64, see `kid`; 0 for equal sets.

    In float64, since all kernel values are close to 1. As in its authors' code, whose diagonals count; the paper says unbiased.
    """
    unit = [torch.nn.functional.normalize(one.double(), dim=1) for one in (known, made)]
    return 1000 * _mmd(unit[0], unit[1], weights.double(), gaussian, unbiased=False)


def _mmd(known: Tensor, made: Tensor, weights: Tensor, kernel: Kernel, unbiased: bool) -> Tensor:
    taken = weights.sum(1)
    across = torch.stack([kernel(block, made).sum(0) for block in known.split(BLOCK)]).sum(0)
    every = torch.ones(1, len(known), dtype=torch.float64)
    of_known, of_made = _within(known, every, kernel, unbiased), _within(made, weights, kernel, unbiased)
    return of_known + of_made - 2 * (weights @ across) / (len(known) * taken)


def _within(features: Tensor, weights: Tensor, kernel: Kernel, unbiased: bool) -> Tensor:
    """(W,) mean of the kernel over pairs of rows, weighted; unbiased: over pairs of two rows."""
    total, pairs = torch.zeros(len(weights), dtype=torch.float64), weights.sum(1).square()
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        part = kernel(features[rows], features)
        if unbiased:
            part.diagonal(start).zero_()
        total += ((weights @ part.mT) * weights[:, rows]).sum(1)
    return total / (pairs - weights.square().sum(1) if unbiased else pairs)
