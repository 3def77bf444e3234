"""How near clips are to others, frame by frame: in pixels, in the eyes of the line's own VAE, and of pretrained networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.critics import vae
from models.generators import Checkpoint
from models.local_encoders import LocalImageEncoder, load_image_encoder
from models.lpips import Lpips
from models.perceptual import perceptual_distance
from tasks.checkpoints import load_checkpoint
from tasks.devices import first_device
from tasks.metrics.reconstruction import psnr, ssim
from tasks.params import ControlParams

SEEN_TOGETHER = 32
"""Frames that a pretrained network looks at together."""


@dataclass(frozen=True)
class Nearness:
    """One measure: (B, T, C, H, W) found and real, both in [-1, 1] -> (B,).

    Attributes:
        what: in words, with the unit.
        sign: 1 where a higher number is nearer, -1 for a distance.
    """

    what: str
    sign: int
    measure: Callable[[Tensor, Tensor], Tensor]


def measures(params: ControlParams, critics: Path, lpips: Lpips | None) -> dict[str, Nearness]:
    """PSNR and SSIM, and distances in the eyes of the VAE critic and of the network in `params.perceptual`, where there is one.

    Neither of these distances is LPIPS, which weights channels as people judged pictures, and is there with `lpips`.

    Raises:
        ValueError: if a network is not there.
    """
    found = {"psnr": Nearness("peak signal-to-noise ratio, dB; higher is nearer", 1, psnr),
             "ssim": Nearness("structural similarity, at most 1; higher is nearer", 1, ssim)}
    if params.vae:
        critic = load_checkpoint(critics / params.vae, first_device())
        found["latents"] = Nearness("distance of latents (VAE of real training frames): mean absolute difference, in their own "
                                    "unit", -1, lambda frames, others: latent_distance(critic, frames, others))
    if params.perceptual:
        eyes = load_image_encoder(params.perceptual).eval().requires_grad_(False)
        backbone = f"{params.perceptual.name}, {eyes.config.settings['model_type']}"
        found["perceptual"] = Nearness(f"perceptual distance ({backbone}): squared difference of unit features, summed over "
                                       "layers; no LPIPS", -1, lambda frames, others: seen_distance(eyes, frames, others))
    if lpips:
        found["lpips"] = Nearness(f"LPIPS ({lpips.word}), version 0.1; lower is nearer, 0 for equal frames", -1,
                                  lambda frames, others: framewise(lpips, frames, others))
    return found


def framewise(lpips: Lpips, frames: Tensor, others: Tensor) -> Tensor:
    """(B,) mean LPIPS of the frames."""
    return lpips(frames.flatten(0, 1), others.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)


def latent_distance(critic: Checkpoint, frames: Tensor, others: Tensor) -> Tensor:
    """(B,) mean absolute difference of the frames' latents."""
    return (vae.latents(critic, frames) - vae.latents(critic, others)).abs().flatten(1).mean(1)


@torch.no_grad()
def seen_distance(eyes: LocalImageEncoder, frames: Tensor, others: Tensor) -> Tensor:
    """(B,) mean perceptual distance of the frames."""
    pairs = zip(*(clips.flatten(0, 1).split(SEEN_TOGETHER) for clips in (frames, others)), strict=True)
    return torch.cat([perceptual_distance(eyes, *pair) for pair in pairs]).unflatten(0, frames.shape[:2]).mean(1)
