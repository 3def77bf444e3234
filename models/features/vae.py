"""Features of the line's own VAE of real training frames: latents averaged over parts of the frame, and their spread in it."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.codec import latent_means
from models.features import FeatureExtractor
from models.generators import Checkpoint

CRITIC = "vae"
GRID = 2
"""Latents are averaged over GRID x GRID parts of the frame, few enough that sets of some tens of clips have a covariance."""


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of critics of kind vae")


class VaeFeatures(FeatureExtractor):
    """See the module. It has seen the real training clips, so it knows them better than any others."""

    def __init__(self, params: Params, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.name = (f"{params.critic} (VAE of real training frames; own size, latents over {GRID} x {GRID} parts and their "
                     "spread)")
        self._vae = checkpoint.nets["vae"]

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, c GRID^2 + c) of c latent channels. Blur and noise change how latents spread, which averages hide."""
        latents = latent_means(self._vae, frames)
        means = functional.adaptive_avg_pool2d(latents.flatten(0, 1), GRID).flatten(1).unflatten(0, latents.shape[:2])
        return torch.cat([means, latents.std((3, 4), correction=0)], 2)


def build(params: Params, checkpoint: Checkpoint) -> VaeFeatures:
    return VaeFeatures(params, checkpoint)
