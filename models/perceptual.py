"""A distance between pictures in the eyes of a pretrained network, as LPIPS has it (Zhang et al. 2018)."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.local_encoders import LocalImageEncoder


class Perceptual(BaseModel):
    """Ctrl-GenAug's VAE has LPIPS with weight 1 beside L1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="a transformers image model: ResNet, ConvNeXt, ViT, DINOv2, CLIP, ...")
    weight: float = Field(1.0, gt=0)


def perceptual_distance(eyes: LocalImageEncoder, frames: Tensor, others: Tensor) -> Tensor:
    """Per picture, the squared difference of unit feature vectors, averaged over places and summed over layers.

    This is LPIPS without its learned weighting of channels, and must not be called LPIPS.

    Args:
        frames, others: (B, C, H, W) in [-1, 1]. Gradients reach `frames` alone.

    Returns:
        (B,).
    """
    with torch.no_grad():
        fixed = [functional.normalize(one, dim=1) for one in eyes.maps(others)]
    pairs = zip((functional.normalize(one, dim=1) for one in eyes.maps(frames)), fixed, strict=True)
    return torch.stack([(one - other).square().sum(1).flatten(1).mean(1) for one, other in pairs]).sum(0)
