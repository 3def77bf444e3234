"""How much several clips that start at one still differ from each other: the mean over all pairs of them."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels_apart(draws: Tensor) -> Tensor:
    """Mean absolute difference of a pixel between two draws, over the frames after the first, which is the still itself.

    Args:
        draws: (B, S, T, C, H, W) in [-1, 1], S >= 2 draws of each still, T >= 2.

    Returns:
        (B,).
    """
    first, second = _pairs(draws[:, :, 1:])
    return (first - second).abs().flatten(1).mean(1)


def motions_apart(fields: Tensor) -> Tensor:
    """Mean distance between the places that two draws' motion fields take a pixel to, from frame to frame.

    Args:
        fields: (B, S, T - 1, 2, H, W) pixels, as `models.motion.optical_flow` gives them.

    Returns:
        (B,) pixels.
    """
    first, second = _pairs(fields)
    return (first - second).norm(dim=3).flatten(1).mean(1)


def features_apart(features: Tensor) -> Tensor:
    """DIV (Dorkenwald et al., CVPR 2021): mean squared difference of a feature between two draws.

    Averaged over features, as in its authors' code; not times 1000, as some of theirs are printed. No pair is looked at: the
    mean squared difference of pairs is twice the variance (divisor S - 1).

    Args:
        features: (B, S, ...), S >= 2 draws of each still.

    Returns:
        (B,).
    """
    return 2 * features.var(1).flatten(1).mean(1)


def _pairs(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides of all S (S - 1) / 2 pairs: (B, P, ...) each."""
    first, second = torch.combinations(torch.arange(draws.shape[1], device=draws.device)).unbind(1)
    return draws[:, first], draws[:, second]
