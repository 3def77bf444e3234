"""Features of EfficientNet-Lite0, trained on ImageNet: frame after frame, by a network that never saw the line's clips.

Not Inception's, so distances in them must not be set beside published FID.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.clip import in_colour
from models.features import FeatureExtractor, together
from models.generators import Checkpoint
from models.nets.efficientnet_lite import load_efficientnet_lite0

CRITIC = None
SIDE, TOGETHER = 224, 16
"""Pixels that frames are resized to, and frames that the network looks at together."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description="the folder that holds efficientnet-lite0-57934424.pth")


class EfficientNetFeatures(FeatureExtractor):
    """See the module."""

    name = f"efficientnet_lite0 (ImageNet; {SIDE} px bilinear, ImageNet normalisation)"
    def __init__(self, weights: Path) -> None:
        super().__init__()
        self._net = load_efficientnet_lite0(weights)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 1280); of frames without three channels the grey ones are shown in all three."""
        mean, std = (frames.new_tensor(one).view(3, 1, 1) for one in (_MEAN, _STD))
        found = []
        for part in together(frames.flatten(0, 1), TOGETHER):
            seen = functional.interpolate(in_colour(part), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            found.append(self._net(((seen + 1) / 2 - mean) / std))
        return torch.cat(found).unflatten(0, frames.shape[:2])


def build(params: Params, checkpoint: Checkpoint | None) -> EfficientNetFeatures:
    return EfficientNetFeatures(params.weights)
