"""A small VAE of single frames; its latents are what VAE-Seq and the similarity filter compare (Ctrl-GenAug, Algorithm 1).

It is trained here, on the training split, whatever codec the generator uses. Two faults of the released filter are not
repeated: it fed [0, 1] images to a VAE of [-1, 1], and it sampled the posterior, which made every score noisy.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.clip import ClipSource
from models.generators import Checkpoint
from models.seeding import derive_seed
from models.trainer import StateHook, TrainParams
from models.trainer import fit as train


class Params(BaseModel):
    """`channels` has one entry a level; every level but the last halves the frame. `batch_size` counts frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[int] = Field(min_length=1)
    latent_channels: int = Field(4, gt=0)
    norm_groups: int = Field(8, gt=0)
    kl_weight: float = Field(1e-6, ge=0)
    train: TrainParams

    @model_validator(mode="after")
    def _whole_groups(self) -> Params:
        if odd := [many for many in self.channels if many % self.norm_groups]:
            raise ValueError(f"channels: {odd} cannot be divided in norm_groups: {self.norm_groups} groups")
        return self


class Reconstruction(nn.Module):
    """The VAE as a trainable whole: frames -> (reconstruction, KL per frame)."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(frames).latent_dist
        return self.vae.decode(posterior.mean + posterior.std * noise).sample, posterior.kl()


def fit(params: Params, clips: ClipSource, hook: StateHook, seed: int) -> Checkpoint:
    """L1 + kl_weight * KL on random single frames."""
    frames, channels, height, width = clips.read([0]).frames.shape[1:]
    factor = 2 ** (len(params.channels) - 1)
    if height % factor or width % factor:
        levels = len(params.channels)
        raise ValueError(f"frame_size {[height, width]} must be divisible by {factor} for {levels} levels of VAE channels")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "vae"))
        vae: Any = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            latent_channels=params.latent_channels,
            block_out_channels=tuple(params.channels),
            down_block_types=("DownEncoderBlock2D",) * len(params.channels),
            up_block_types=("UpDecoderBlock2D",) * len(params.channels),
            layers_per_block=1,
            norm_num_groups=params.norm_groups,
            mid_block_add_attention=False,
        )
    size = params.train.batch_size

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        device = next(net.parameters()).device
        batch = clips.read(torch.randint(len(clips), (size,), generator=rng).tolist())
        x = batch.frames[torch.arange(size), torch.randint(frames, (size,), generator=rng)].to(device)
        noise = torch.randn(size, params.latent_channels, height // factor, width // factor, generator=rng).to(device)
        back, kl = net(x, noise)
        return (back - x).abs().mean() + params.kl_weight * kl.mean()

    whole = Reconstruction(vae)
    losses = train(whole, loss, params.train, phase="vae", seed=seed, hook=hook)
    facts = {"clip_shape": [frames, channels, height, width]}
    return Checkpoint("vae", params.model_dump(mode="json"), {"vae": vae}, facts, {"vae": losses})


@torch.inference_mode()
def latents(checkpoint: Checkpoint, frames: Tensor, batch: int = 32) -> Tensor:
    """Posterior means of all frames: (B, T, C, H, W) in [-1, 1] -> (B, T, c, h, w) float32; `batch` frames at a time."""
    vae: Any = checkpoint.nets["vae"]
    means = torch.cat([vae.encode(part).latent_dist.mean.float() for part in frames.flatten(0, 1).split(batch)])
    return means.view(*frames.shape[:2], *means.shape[1:])
