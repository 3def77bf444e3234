"""LDDM: a still becomes a clip (Chen et al., MICCAI 2024).

Stage 1 learns what moves in a clip, given its first frame, as a small latent; stage 2 is a diffusion model of that latent,
given the first frame. To sample, a latent is drawn and decoded: several seeds give several motions of one still, and frame 0 is
the still itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.adversary import Adversary, AdversaryParams
from models.clip import ClipBatch, ClipSource, Condition, DescribedClips, spread
from models.diffusion.denoiser import Prediction
from models.diffusion.latent_sampler import Schedule, denoise_latents, latent_schedule, target
from models.generators import Checkpoint
from models.local_encoders import load_image_encoder
from models.nets.clip_autoencoder import ClipDecoder, ClipEncoder, LatentMode, latent_shape
from models.nets.dynamics_denoiser import GridDenoiser, VectorDenoiser
from models.perceptual import Perceptual, perceptual_distance
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit

MEASURED, READ_TOGETHER = 256, 16
"""Clips that latent statistics are measured on at most; clips encoded at a time."""


class AutoencoderParams(BaseModel):
    """Stage 1, whose loss the paper does not state: L1, and L1 of neighbouring pixels' differences where no weights of a
    perceptual network are at hand, and a little KL. `batch_size` counts clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent: LatentMode = "grid"
    channels: int | None = Field(None, gt=0, description="of a grid (None: 4), or length of a vector (None: 64)")
    width: int = Field(16, gt=0, multiple_of=8, description="of the encoder's first level; ResNet-18 has 64")
    features: int = Field(16, gt=0, description="of the decoder at the frame's own scale")
    residual: bool = Field(True, description="decode the change from the first frame; false: the frames, as in cINN")
    gradient_weight: float = Field(1.0, ge=0)
    kl_weight: float = Field(1e-6, ge=0, description="of the sum over dimensions, averaged over clips")
    perceptual: Perceptual | None = Field(None, description="adds a distance in a pretrained network's eyes")
    adversary: AdversaryParams | None = Field(None, description="adds cINN's discriminators")
    train: TrainParams

    @property
    def size(self) -> int:
        return self.channels or (4 if self.latent == "grid" else 64)


class Params(BaseModel):
    """What training needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    autoencoder: AutoencoderParams
    denoiser: list[int] = Field([32, 64], min_length=1, description="channels by level (grid), or width and depth (vector)")
    diffusion: TrainParams
    prediction: Prediction = "epsilon"
    schedule: Schedule = "linear"


class Sampling(BaseModel):
    """What sampling needs. Not stated in the paper: DDPM is its plain reading, `fast` takes a fiftieth of the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: Literal["fast", "ddim", "ddpm"] = "fast"
    steps: int = Field(20, gt=0, le=1000)


def build(params: Params, checkpoint: Checkpoint | None = None) -> Lddm:
    return Lddm(params, checkpoint)


class Lddm:
    """See the module. Networks: `encoder`, `decoder`, `denoiser`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.schedule = latent_schedule(params.schedule, params.prediction)
        self._nets: dict[str, Any] = dict(checkpoint.nets) if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train both stages; a resumed run ends with the same weights.

        Raises:
            ValueError: for clips of one frame, or frames smaller than 16 pixels.
        """
        shape = list(clips.read([0]).frames.shape[1:])
        frames, channels, height, width = shape
        if frames < 2 or min(height, width) < 16:
            raise ValueError(f"LDDM needs clips of at least 2 frames of 16x16 pixels, but they have {frames} of {height}x"
                             f"{width}")
        wanted = self.params.autoencoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "autoencoder"))
            self._nets["encoder"] = ClipEncoder(channels, wanted.width, wanted.latent, wanted.size)
            self._nets["decoder"] = ClipDecoder(channels, frames, height, width, wanted.features, wanted.latent, wanted.size,
                                                wanted.residual)
            adversary = Adversary(wanted.adversary, channels) if wanted.adversary else None
        both = self._nets["encoder"], self._nets["decoder"]
        losses = {"autoencoder": fit(_Autoencoder(*both), _autoencoder_loss(clips, wanted, wanted.train), wanted.train,
                                     phase="autoencoder", seed=seed, hook=hook)}
        if adversary:
            train = adversary.params.train
            losses["adversarial"] = fit(_Autoencoder(*both, adversary), _autoencoder_loss(clips, wanted, train), train,
                                        phase="adversarial", seed=seed, hook=hook)
        self._facts = {"clip_shape": shape, **self._measure(clips)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "diffusion"))
            self._nets["denoiser"] = self._denoiser(channels)
        losses["diffusion"] = fit(self._nets["denoiser"], self._loss(clips), self.params.diffusion, phase="diffusion",
                                  seed=seed, hook=hook)
        return Checkpoint("lddm", self.params.model_dump(mode="json"), dict(self._nets), self._facts, losses)

    def _denoiser(self, channels: int) -> GridDenoiser | VectorDenoiser:
        sizes, wanted = self.params.denoiser, self.params.autoencoder
        if wanted.latent == "grid":
            return GridDenoiser(wanted.size, channels, sizes)
        return VectorDenoiser(wanted.size, channels, *sizes[:2])

    def _measure(self, clips: ClipSource) -> dict[str, list[float]]:
        """Mean and standard deviation of the training clips' latents, of each channel or each number of a vector."""
        rows = spread(len(clips), MEASURED)
        parts = [self._means(clips.read(rows[start : start + READ_TOGETHER]).frames)
                 for start in range(0, len(rows), READ_TOGETHER)]
        latents = torch.cat(parts).double().transpose(0, 1).flatten(1)
        return {"latent_mean": latents.mean(1).tolist(), "latent_std": latents.std(1, correction=0).clamp_min(1e-6).tolist()}

    @torch.no_grad()
    def _means(self, frames: Tensor) -> Tensor:
        mean: Tensor = self._nets["encoder"](frames)[0]
        return mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, in the shape of one latent of the batch."""
        shape = (-1, *[1] * (latents.dim() - 2))
        mean, std = (torch.tensor(self._facts[name]).view(shape).to(latents) for name in ("latent_mean", "latent_std"))
        return mean, std

    def _loss(self, clips: ClipSource) -> Loss:
        """Mean squared error on standardised latents, t uniform."""

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            device = next(net.parameters()).device
            self._nets["encoder"].to(device).eval()
            rows = torch.randint(len(clips), (self.params.diffusion.batch_size,), generator=rng).tolist()
            frames = clips.read(rows).frames.to(device)
            latents = self._means(frames)
            mean, std = self._statistics(latents)
            latents = (latents - mean) / std
            t = torch.randint(len(self.schedule.betas), (len(rows),), generator=rng).to(device)
            noise = torch.randn(latents.shape, generator=rng).to(device)
            found = net(self.schedule.add_noise(latents, noise, t), t, frames[:, 0])
            return (found.float() - target(self.schedule, latents, noise, t)).square().mean()

        return loss

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed.

        Args:
            conditions: their `reference` has the stills as first frames; masks, labels and texts are passed on.
            seeds: B integers.

        Returns:
            Clips with (B, T, C, H, W) frames on the CPU, whose frame 0 is the still; ids are the condition ids, the caller
            knows better ones.

        Raises:
            ValueError: without stills, for stills of another shape than the training clips' frames, or not one seed a
                condition.
        """
        if len(seeds) != len(conditions):
            raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
        shape = self._facts["clip_shape"]
        if conditions.reference is None:
            raise ValueError("LDDM animates stills, but the conditions have none; use conditions of kind stills or clips")
        if list(conditions.reference.shape[2:]) != shape[1:]:
            raise ValueError(f"stills have shape {list(conditions.reference.shape[2:])}, but the checkpoint was trained on "
                             f"{shape[1:]} (channels, height, width)")
        first = conditions.reference[:, 0].to(device)
        denoiser, wanted = self._nets["denoiser"].to(device).eval(), self.params.autoencoder
        rngs, one = [generator(seed) for seed in seeds], latent_shape(wanted.latent, wanted.size, shape)

        def draw() -> Tensor:
            return torch.stack([torch.randn(one, generator=rng) for rng in rngs]).to(device)

        def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, None]:
            return denoiser(x, t, first), None

        latents = denoise_latents(predict, self.schedule, draw(), solver="fast" if sampling.solver == "fast" else "ddim",
                                  steps=sampling.steps, guidance=1, interval=(0, 1),
                                  draw=draw if sampling.solver == "ddpm" else None)
        mean, std = self._statistics(latents)
        return ClipBatch(conditions.ids, self.decode(first, latents * std + mean), conditions)

    @torch.no_grad()
    def decode(self, first: Tensor, latents: Tensor) -> Tensor:
        """First frames (B, C, H, W) and the autoencoder's latents -> clips (B, T, C, H, W) in [-1, 1] on the CPU."""
        clips: Tensor = self._nets["decoder"].to(first.device).eval()(first, latents)
        return clips.float().clamp(-1, 1).cpu()

    @torch.no_grad()
    def reconstruct(self, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Clips (B, T, C, H, W) through encoder and decoder; frame 0 stays as it is.

        Args:
            rng: CPU generator that the latents are drawn with, from the encoder's posterior; None: its mean.
        """
        mean, log_variance = self._nets["encoder"].to(frames.device).eval()(frames)
        noise = torch.randn(mean.shape, generator=rng).to(mean) if rng else torch.zeros_like(mean)
        return self.decode(frames[:, 0], mean + (0.5 * log_variance).exp() * noise)


class _Autoencoder(nn.Module):
    def __init__(self, encoder: ClipEncoder, decoder: ClipDecoder, adversary: Adversary | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.adversary = encoder, decoder, adversary

    def forward(self, clips: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, KL of each clip to the standard normal, and the adversary's term, 0 without one."""
        mean, log_variance = self.encoder(clips)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        found = self.decoder(clips[:, 0], mean + (0.5 * log_variance).exp() * noise)
        return found, kl, self.adversary(clips[:, 1:], found[:, 1:]) if self.adversary else found.new_zeros(())


def _autoencoder_loss(clips: ClipSource, params: AutoencoderParams, train: TrainParams) -> Loss:
    """Of the frames after the first."""
    shape = latent_shape(params.latent, params.size, clips.read([0]).frames.shape[1:])
    wanted = params.perceptual
    eyes = load_image_encoder(wanted.folder).eval().requires_grad_(False) if wanted else None

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        device = next(net.parameters()).device
        real = clips.read(torch.randint(len(clips), (train.batch_size,), generator=rng).tolist()).frames.to(device)
        noise = torch.randn(train.batch_size, *shape, generator=rng).to(device)
        found, kl, against = net(real, noise)
        apart = (found - real)[:, 1:]
        slopes = (apart.diff(dim=-1).abs().mean() + apart.diff(dim=-2).abs().mean()) / 2
        total = apart.abs().mean() + params.gradient_weight * slopes + params.kl_weight * kl.mean() + against
        if wanted and eyes:
            distance = perceptual_distance(eyes.to(device), found[:, 1:].flatten(0, 1), real[:, 1:].flatten(0, 1))
            total = total + wanted.weight * distance.mean()
        return total

    return loss
