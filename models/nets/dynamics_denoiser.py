"""Denoisers of LDDM's latent, given the first frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional

from models.nets.first_frame import FirstFrame


class GridDenoiser(ModelMixin, ConfigMixin):
    """diffusers' 3-D U-Net; the first frame's features stand beside every latent frame and are its tokens too.

    Args:
        latent: channels of the latent.
        frame_channels: of the first frame.
        channels: of the U-Net's levels, multiples of 16; all but the last halve height and width.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, latent: int = 4, frame_channels: int = 1, channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        width = channels[0]
        self.first = FirstFrame(frame_channels, width)
        self.unet = UNet3DConditionModel(
            in_channels=latent + width, out_channels=latent, block_out_channels=tuple(channels), layers_per_block=1,
            norm_num_groups=8, cross_attention_dim=width, attention_head_dim=16,
            down_block_types=("CrossAttnDownBlock3D",) * len(channels), up_block_types=("CrossAttnUpBlock3D",) * len(channels),
        )

    def forward(self, latents: Tensor, t: Tensor, first: Tensor) -> Tensor:
        """(B, c, t, h, w) noisy, (B,) timesteps, (B, C, H, W) first frames -> (B, c, t, h, w)."""
        features = self.first(first)
        beside = features[:, :, None].expand(-1, -1, latents.shape[2], -1, -1)
        found: Tensor = self.unet(torch.cat([latents, beside], 1), t, features.flatten(2).transpose(1, 2)).sample
        return found


class VectorDenoiser(ModelMixin, ConfigMixin):
    """A residual MLP; the first frame and the timestep scale and shift every layer (FiLM, Perez et al. 2018).

    Args:
        latent: length of the latent.
        frame_channels: of the first frame.
        width: of the hidden layers.
        depth: their number.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, latent: int = 64, frame_channels: int = 1, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.first = FirstFrame(frame_channels, width)
        self.sinusoids, self.time = Timesteps(width, True, 0), TimestepEmbedding(width, width)
        self.start, self.out = nn.Linear(latent, width), nn.Linear(width, latent)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        self.films = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth))

    def forward(self, latents: Tensor, t: Tensor, first: Tensor) -> Tensor:
        """(B, c) noisy, (B,) timesteps, (B, C, H, W) first frames -> (B, c)."""
        seen = self.first(first).mean((2, 3)) + self.time(self.sinusoids(t).to(latents))
        x = self.start(latents)
        for norm, film, layer in zip(self.norms, self.films, self.layers, strict=True):
            scale, shift = film(functional.silu(seen)).chunk(2, 1)
            x = x + layer(norm(x) * (1 + scale) + shift)
        out: Tensor = self.out(x)
        return out
