"""A conditional normalising flow of a latent, given the first frame (cINN: Dorkenwald et al., CVPR 2021)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from zuko.flows import RealNVP
from zuko.transforms import MonotonicAffineTransform

from models.nets.first_frame import FirstFrame

PLACES = 4
"""Rows and columns of the first frame's features that the flow is told of."""


class LatentFlow(ModelMixin, ConfigMixin):
    """zuko's RealNVP: affine couplings, one pass of a perceptron each way, so that sampling costs what training does.

    The flow is told of the first frame by features of 4 x 4 places, flattened: how a thing moves depends on where it is, which
    an average over the frame would hide, and 4 x 4 keeps the network's size independent of the frame's. As in cINN's code a
    coupling scales by 1/e to e at most, and takes random halves of the latent. Untrained, the flow is the standard normal.

    Args:
        latent: numbers in a latent.
        frame_channels: of the first frame.
        context: length of what the couplings are told of the first frame; a multiple of 16.
        couplings: how many; cINN has 20.
        width, depth: of the hidden layers of a coupling's perceptron; cINN has 8 times the latent, and 2.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, latent: int = 64, frame_channels: int = 1, context: int = 32, couplings: int = 8, width: int = 128,
                 depth: int = 2) -> None:
        super().__init__()
        self.first = nn.Sequential(FirstFrame(frame_channels, context), nn.AdaptiveAvgPool2d(PLACES), nn.Flatten(),
                                   nn.Linear(context * PLACES**2, context), nn.SiLU())
        self.flow: Any = RealNVP(latent, context, couplings, randmask=True, hidden_features=(width,) * depth,
                                 activation=nn.SiLU, univariate=partial(MonotonicAffineTransform, slope=math.exp(-1)))
        for coupling in self.flow.transform.transforms:
            nn.init.zeros_(coupling.hyper[-1].weight)
            nn.init.zeros_(coupling.hyper[-1].bias)

    def forward(self, latents: Tensor, first: Tensor) -> Tensor:
        """(B, n) latents and (B, C, H, W) first frames -> (B,) log densities."""
        density: Tensor = self.flow(self.first(first)).log_prob(latents)
        return density

    def to_noise(self, latents: Tensor, first: Tensor) -> Tensor:
        """(B, n) latents -> (B, n), standard normal if they are distributed as the flow has learned."""
        noise: Tensor = self.flow.transform(self.first(first))(latents)
        return noise

    def from_noise(self, noise: Tensor, first: Tensor) -> Tensor:
        """The inverse of `to_noise`."""
        latents: Tensor = self.flow.transform(self.first(first)).inv(noise)
        return latents
