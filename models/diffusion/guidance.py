"""Combined predictions (SF-VD Eqs. 4, 6, 8) and guidance by a segmentation network (Eq. 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Omega(NamedTuple):
    """Weights of the *conditioned* predictions in the three stages; 1 is the plain conditional prediction."""

    scene: float
    concluding: float
    intermediate: float


OMEGA = {
    "literal": Omega(0.7, -2.5, -1.5),
    "default": Omega(0.7, 3.5, 1.5),
    "bayes": Omega(1.0, 1.0, 1.0),
}
"""Named readings of the paper's omega.

`literal` is what is printed. Its negative values push *away* from the conditioning frame and end at the clipping bound; it
is kept for study. `default` reads them as the weight of the mask-only prediction's counterpart, i.e. ordinary strong
guidance (1 - (-2.5) = 3.5). `bayes` is exact under the conditional independence that Eq. 7 assumes.
"""


def combine(base: Tensor, conditioned: list[Tensor], omega: float) -> Tensor:
    """(1 - n omega) base + omega (sum of the n conditioned predictions): Eqs. 4 and 6 for n = 1, Eq. 8 for n = 2.

    Weights sum to one, so it holds for epsilon- and v-predictions alike.
    """
    return (1 - len(conditioned) * omega) * base + omega * torch.stack(conditioned).sum(0)


def needs_base(omega: float, conditioned: int) -> bool:
    """Whether the base prediction has any weight: omega = 1 with one condition needs no second pass."""
    return abs(1 - conditioned * omega) > 1e-12


def mask_gradient(segment: Callable[[Tensor], Tensor], x_t: Tensor, masks: Tensor, scale: Literal["sum", "mean"],
                  max_norm: float) -> Tensor:
    """Gradient of log p_psi(M | x_t) with respect to x_t, clipped by norm frame by frame.

    For one class and a sigmoid this is Eq. 9's sum of M log s + (1 - M) log(1 - s); with K classes the softmax takes its place.

    Args:
        segment: x_t -> logits (B, K + 1, H, W); noise-aware, the timestep is bound in it.
        x_t: (B, C, H, W).
        masks: (B, H, W) integer labels.
        scale: "sum" over pixels as printed, or that sum divided by the number of foreground pixels, which does not
            depend on the resolution.
        max_norm: larger gradients are scaled down to this L2 norm per frame.
    """
    with torch.enable_grad():
        leaf = x_t.detach().requires_grad_(True)
        log_p = -functional.cross_entropy(segment(leaf), masks.long(), reduction="none").flatten(1).sum(1)
        if scale == "mean":
            log_p = log_p / (masks > 0).flatten(1).sum(1).clamp_min(1)
        (gradient,) = torch.autograd.grad(log_p.sum(), leaf)
    norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    return gradient * (max_norm / norm).clamp_max(1).view(-1, 1, 1, 1)
