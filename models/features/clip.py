"""Features of a CLIP's image half, from a folder of transformers, frame after frame: with the right CLIP, what CMMD is taken in
(Jayasumana et al., CVPR 2024)."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.clip import in_colour
from models.features import FeatureExtractor, together
from models.generators import Checkpoint
from models.local_encoders import load_clip_tower

CRITIC = None
TOGETHER = 16
"""Frames that the network looks at together."""

CMMD = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14, "image_size": 336, "projection_dim": 768}
"""Its CLIP, ViT-L/14 at 336 pixels, by its settings; whose weights are in the folder they do not say."""


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description="a transformers folder of a CLIP, or of its image half with the projection")


class ClipFeatures(FeatureExtractor):
    """See the module.

    Attributes:
        earned: CMMD is taken of frames at the same place of their clips, and averaged over places.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self._net = load_clip_tower(weights)
        settings = self._net.settings
        self._side = int(settings["image_size"])
        self.name = (f"clip ({weights.name}, ViT of width {settings['hidden_size']}, patches of {settings['patch_size']} px; "
                     f"{self._side} px bicubic, antialiased, its own normalisation; unit length)")
        right = all(settings[what] == value for what, value in CMMD.items())
        self.earned = {"cmmd": "CMMD, mean over the clip's frames"} if right else {}

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D), rows of length 1; of frames without three channels the grey ones are shown in all three.

        Frames are stretched to a square, not cropped, by the filter of CMMD's authors, which PyTorch has with antialiasing.
        """
        size, found = (self._side, self._side), []
        for part in together(frames.flatten(0, 1), TOGETHER):
            seen = functional.interpolate((part + 1) / 2, size, mode="bicubic", antialias=True, align_corners=False)
            found.append(functional.normalize(self._net(in_colour(seen)), dim=1))
        return torch.cat(found).unflatten(0, frames.shape[:2])


def build(params: Params, checkpoint: Checkpoint | None) -> ClipFeatures:
    return ClipFeatures(params.weights)
