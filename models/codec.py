"""Frames to latents and back: a VAE of single frames, trained from scratch on the training split or taken from a folder.

Ctrl-GenAug keeps Stable Diffusion's latent scale of 0.18215 for a VAE it has changed; here mean and standard deviation of the
latents are measured, channel by channel, on the clips the generator is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.clip import ClipSource
from models.local_encoders import load_image_encoder
from models.nets.taef2 import load_taef2
from models.perceptual import Perceptual, perceptual_distance
from models.seeding import derive_seed, generator
from models.trainer import StateHook, TrainParams, fit
from models.weight_files import configuration, published

_VAES = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny, VQModel)}
"""diffusers' VAEs of images that say `latent_channels` and `block_out_channels`."""

MEASURED = 256
"""Frames that latent statistics are measured on."""


class VaeParams(BaseModel):
    """`channels` has one entry a level; every level but the last halves the frame. `batch_size` counts frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[int] = Field(min_length=1)
    latent_channels: int = Field(4, gt=0)
    norm_groups: int = Field(8, gt=0)
    kl_weight: float = Field(1e-6, ge=0)
    perceptual: Perceptual | None = Field(None, description="adds a distance in a pretrained network's eyes to L1")
    train: TrainParams

    @model_validator(mode="after")
    def _whole_groups(self) -> VaeParams:
        if odd := [many for many in self.channels if many % self.norm_groups]:
            raise ValueError(f"channels: {odd} cannot be divided in norm_groups: {self.norm_groups} groups")
        return self


class LocalVae(BaseModel):
    """A pretrained VAE, as it is. One of three channels sees a grey frame three times.

    In `folder`, any of diffusers' VAEs of images; or, as `taef2`, the folder of the two files of `models.nets.taef2`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = Field(None, description="holds config.json and diffusion_pytorch_model.safetensors")
    taef2: Path | None = Field(None, description="holds taef2_encoder.pth and taef2_decoder.pth; their checksums are verified")

    @model_validator(mode="after")
    def _one_of_them(self) -> LocalVae:
        if (self.folder is None) == (self.taef2 is None):
            raise ValueError("codec needs either folder or taef2 (or, to train one, channels and train)")
        return self


class Reconstruction(nn.Module):
    """The VAE as a trainable whole: frames -> (reconstruction, KL per frame)."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(frames).latent_dist
        return self.vae.decode(posterior.mean + posterior.std * noise).sample, posterior.kl()


def train_vae(params: VaeParams, clips: ClipSource, hook: StateHook, seed: int, phase: str = "vae") -> tuple[Any, list[float]]:
    """L1 (+ weight * perceptual distance) + kl_weight * KL on random single frames; returns the AutoencoderKL and its losses.

    Raises:
        ValueError: if the frames cannot be halved as often as the levels ask, or there is no perceptual network.
    """
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
    size, wanted = params.train.batch_size, params.perceptual
    eyes = load_image_encoder(wanted.folder).eval().requires_grad_(False) if wanted else None

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        device = next(net.parameters()).device
        batch = clips.read(torch.randint(len(clips), (size,), generator=rng).tolist())
        x = batch.frames[torch.arange(size), torch.randint(frames, (size,), generator=rng)].to(device)
        noise = torch.randn(size, params.latent_channels, height // factor, width // factor, generator=rng).to(device)
        back, kl = net(x, noise)
        total = (back - x).abs().mean() + params.kl_weight * kl.mean()
        return total + wanted.weight * perceptual_distance(eyes.to(device), back, x).mean() if wanted and eyes else total

    return vae, fit(Reconstruction(vae), loss, params.train, phase=phase, seed=seed, hook=hook)


def obtain_vae(wanted: VaeParams | LocalVae, clips: ClipSource, hook: StateHook,
               seed: int) -> tuple[Any, dict[str, list[float]]]:
    """The codec a generator asks for, trained here or pretrained, and its losses by phase: none of a pretrained one."""
    if isinstance(wanted, LocalVae):
        return load_vae(wanted), {}
    vae, losses = train_vae(wanted, clips, hook, seed)
    return vae, {"vae": losses}


def load_vae(wanted: LocalVae) -> Any:
    """The pretrained VAE.

    Raises:
        ValueError: if there is none, or none of images.
    """
    if wanted.taef2:
        return load_taef2(wanted.taef2)
    folder = wanted.folder or Path()
    if not (folder / "config.json").exists():
        raise ValueError(f"codec.folder: {folder} holds no config.json; give a folder that save_pretrained of diffusers wrote")
    name = configuration(folder / "config.json").get("_class_name")
    if not isinstance(name, str) or name not in _VAES:
        raise ValueError(f"codec.folder: {folder} holds a {name}; give one of {', '.join(_VAES)}")
    return published(_VAES[name], folder).eval()


class Codec:
    """A VAE with the statistics of its latents: what it encodes has mean 0 and standard deviation 1 in every channel.

    Args:
        mean, std: (c,) of the latents, as `measure` gives them.
    """

    def __init__(self, vae: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        self.vae = vae
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    @property
    def factor(self) -> int:
        """Pixels to a latent pixel along each axis."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def channels(self) -> int:
        return int(self.vae.config.latent_channels)

    def check_size(self, size: Sequence[int], levels: int, what: str) -> None:
        """Raises ValueError if frames of this height and width cannot be halved as often as codec and `levels` ask."""
        smallest = self.factor * 2 ** (levels - 1)
        if any(side % smallest for side in size):
            raise ValueError(f"frame_size {list(size)} must be divisible by {smallest}: the codec's {self.factor} times "
                             f"{levels} levels of {what} channels")

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Posterior means, standardised: (B, T, C, H, W) in [-1, 1] -> (B, T, c, h, w)."""
        latents = _means(self.vae, frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return (latents - self.mean.to(latents)) / self.std.to(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor, channels: int, batch: int = 32) -> Tensor:
        """(B, T, c, h, w) -> (B, T, channels, H, W), clipped to [-1, 1]; `batch` frames at a time."""
        flat = (latents * self.std.to(latents) + self.mean.to(latents)).flatten(0, 1)
        frames = torch.cat([self.vae.decode(part).sample for part in flat.split(batch)]).clamp(-1, 1)
        if frames.shape[1] != channels:
            frames = frames.mean(1, keepdim=True)
        return frames.unflatten(0, latents.shape[:2])


def measure(vae: Any, clips: ClipSource, seed: int) -> dict[str, list[float]]:
    """Mean and standard deviation, channel by channel, of the latents of up to `MEASURED` random training frames."""
    rng = generator(derive_seed(seed, "latent statistics"))
    rows = torch.randperm(len(clips), generator=rng).tolist()
    found: list[Tensor] = []
    for row in rows:
        found.append(_means(vae, clips.read([row]).frames[0]))
        if sum(map(len, found)) >= MEASURED:
            break
    latents = torch.cat(found).double()
    return {"latent_mean": latents.mean((0, 2, 3)).tolist(), "latent_std": latents.std((0, 2, 3)).clamp_min(1e-6).tolist()}


def latent_scale(vae: Any, clips: ClipSource, seed: int) -> float:
    """Root mean square of the latents that `measure` looks at, over all channels: 1 over diffusers' `scaling_factor`."""
    found = measure(vae, clips, seed)
    squares = [mean**2 + std**2 for mean, std in zip(found["latent_mean"], found["latent_std"], strict=True)]
    return float((sum(squares) / len(squares)) ** 0.5)


@torch.inference_mode()
def latent_means(vae: Any, frames: Tensor, batch: int = 32) -> Tensor:
    """Posterior means of all frames: (B, T, C, H, W) in [-1, 1] -> (B, T, c, h, w) float32; `batch` frames at a time.

    The VAE looks where it is, and the latents lie where the frames do.
    """
    device = next(vae.parameters()).device
    means = torch.cat([_means(vae, part.to(device)).float().to(part.device) for part in frames.flatten(0, 1).split(batch)])
    return means.view(*frames.shape[:2], *means.shape[1:])


@torch.no_grad()
def _means(vae: Any, frames: Tensor) -> Tensor:
    wanted: int = vae.config.in_channels
    seen = frames if frames.shape[1] == wanted else frames.mean(1, keepdim=True).expand(-1, wanted, -1, -1)
    encoded = vae.encode(seen)
    means: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    return means
