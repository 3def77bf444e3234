"""Noise that moves with the picture: the same grain lies on the same tissue in every frame.

Ctrl-GenAug's noise is independent from frame to frame, so a network must undo its flicker before it can show any motion. Here
noise is carried along the motion field instead (Chang et al., "How I Warped Your Noise", 2024; Burgert et al.,
"Go-with-the-Flow", 2025), on a grid finer than the pixels, so that motions of less than a pixel count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.motion import NONE, links

FINE = 4
"""Grains to a pixel along each axis: motion is rounded to a quarter of a pixel."""


def warped_noise(field: Tensor, channels: int, factor: int, correlation: float, rngs: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise of clips of latents, correlated along motion.

    Within a frame every value is independent of every other, whatever the field. A grain in the next frame is `correlation`
    times itself plus fresh noise that restores its variance; where nothing arrives it is fresh; where several arrive, it is one
    of them, drawn at random. A latent pixel is the sum of its grains over the root of their number.

    Args:
        field: (B, T - 1, 2, H, W) pixels, as `models.motion.optical_flow` gives it, on any device.
        channels: of the latents.
        factor: pixels to a latent pixel along each axis.
        correlation: between a frame's grain and the next one's, in [0, 1]; 0 is independent noise.
        rngs: one CPU generator a clip.

    Returns:
        (B, T, channels, H / factor, W / factor) float32 on the CPU.
    """
    return torch.stack([_one(one, channels, factor, correlation, rng) for one, rng in zip(field.cpu(), rngs, strict=True)])


def _one(field: Tensor, channels: int, factor: int, correlation: float, rng: torch.Generator) -> Tensor:
    """Of one clip, (T - 1, 2, H, W) -> (T, channels, h, w); grains of one frame at a time."""
    height, width = FINE * field.shape[2], FINE * field.shape[3]
    fresh_share = (1 - correlation**2) ** 0.5

    def latent(grain: Tensor) -> Tensor:
        return functional.avg_pool2d(grain.view(channels, height, width), FINE * factor) * (FINE * factor)

    grain = torch.randn(channels, height * width, generator=rng)
    frames = [latent(grain)]
    for motion in field:
        fine = FINE * motion.repeat_interleave(FINE, 1).repeat_interleave(FINE, 2)
        following = links(fine[None, None], 1, rng)[0, 0]
        origin = (following != NONE).nonzero()[:, 0]
        target = following[origin]
        carried = grain[:, origin]
        grain = torch.randn(channels, height * width, generator=rng)
        grain[:, target] = correlation * carried + fresh_share * grain[:, target]
        frames.append(latent(grain))
    return torch.stack(frames)
