"""What a denoiser is told, as tensors: masks as channels, another frame with its distance."""

from __future__ import annotations

import torch
from torch import Tensor

from models.clip import UNKNOWN

DISTANCE_SCALE = 1000.0
"""Frame distances in [-1, 1] times this are embedded like timesteps, so that one frame's difference is far from nothing."""


def mask_channels(masks: Tensor, classes: int) -> Tensor:
    """(B, H, W) labels -> (B, K + 1, H, W) float: one channel a class, then 1 where the mask is known.

    Zeros alone would not tell "no wire here" from "nobody looked".
    """
    layers = [masks == label for label in range(1, classes + 1)]
    return torch.stack([*layers, masks != UNKNOWN], 1).float()


def drop_masks(masks: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """(B, H, W) labels with whole masks replaced by UNKNOWN, each with this probability."""
    dropped = torch.rand(len(masks), generator=rng) < probability
    return torch.where(dropped.view(-1, 1, 1), torch.full_like(masks, UNKNOWN), masks)


def frame_channels(given: Tensor, distance: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Another frame of the clip: channels (B, C + 1, H, W), the frame and its indicator, and the scaled distance (B,).

    Args:
        given: (B, C, H, W).
        distance: (B,) signed, (target - given) / (N - 1) in [-1, 1].
        present: (B,) bool; a frame left out is zero with its indicator and its distance zero.
    """
    has = present.to(given.dtype)
    indicator = has.view(-1, 1, 1, 1).expand(-1, 1, *given.shape[2:])
    return torch.cat([given * has.view(-1, 1, 1, 1), indicator], 1), distance * has * DISTANCE_SCALE
