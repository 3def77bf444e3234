"""Noise that moves with the picture: the same grain lies on the same tissue in every frame.

Ctrl-GenAug's noise is independent from frame to frame, so a network must undo its flicker before it can show any motion. Here
noise is carried along the motion field instead (Chang et al., "How I Warped Your Noise", 2024; Burgert et al.,
"Go-with-the-Flow", 2025), on the pixel grid, so that motions of less than a latent pixel count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.motion import NONE, links


def warped_noise(field: Tensor, channels: int, factor: int, correlation: float, rngs: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise of clips of latents, correlated along motion.

    Within a frame every value is independent of every other, whatever the field. A pixel's grain in the next frame is
    `correlation` times itself plus fresh noise that restores its variance; where nothing arrives it is fresh; where several
    arrive, one of them, drawn at random. A latent pixel is the sum of its pixels over `factor`.

    Args:
        field: (B, T - 1, 2, H, W) pixels, as `models.motion.block_matching` gives it, on any device.
        channels: of the latents.
        factor: pixels to a latent pixel along each axis.
        correlation: between a frame's grain and the next one's, in [0, 1]; 0 is independent noise.
        rngs: one CPU generator a clip.

    Returns:
        (B, T, channels, H / factor, W / factor) float32 on the CPU.
    """
    clips, steps, _, height, width = field.shape
    field, fresh_share = field.cpu(), (1 - correlation**2) ** 0.5
    grain = torch.stack([torch.randn(steps + 1, channels, height * width, generator=rng) for rng in rngs])
    following = torch.cat([links(one[None], 1, rng) for one, rng in zip(field, rngs, strict=True)])
    for step in range(steps):
        clip, origin = (following[:, step] != NONE).nonzero(as_tuple=True)
        target = following[clip, step, origin]
        grain[clip, step + 1, :, target] = (correlation * grain[clip, step, :, origin]
                                            + fresh_share * grain[clip, step + 1, :, target])
    pooled = functional.avg_pool2d(grain.view(-1, channels, height, width), factor) * factor
    return pooled.view(clips, steps + 1, *pooled.shape[1:])
