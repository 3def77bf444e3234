"""What moves in a clip, given its first frame, as a small latent: stage 1 of LDDM and of cINN.

Both generators draw this latent for a still and decode it; they differ in nothing but the model that draws it. With the same
`seed` and parameters it has the same weights in both, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.adversary import Adversary, AdversaryParams
from models.clip import ClipBatch, ClipSource, Condition, spread
from models.generators import Checkpoint
from models.local_encoders import load_image_encoder
from models.nets.clip_autoencoder import ClipDecoder, ClipEncoder, LatentMode, latent_shape
from models.perceptual import Perceptual, perceptual_distance
from models.seeding import derive_seed
from models.trainer import Loss, StateHook, TrainParams, fit

MEASURED, READ_TOGETHER = 256, 16
"""Clips that latent statistics are measured on at most; clips encoded at a time."""


class AutoencoderParams(BaseModel):
    """Stage 1, whose loss LDDM's paper does not state: L1, and L1 of neighbouring pixels' differences where no weights of a
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
    seed: int | None = Field(None, description="None: the generator's own, which differs from entry to entry; entries that "
                             "give the same one, and equal parameters, have the same latent")

    @property
    def size(self) -> int:
        return self.channels or (4 if self.latent == "grid" else 64)


class Dynamics:
    """The autoencoder and the statistics of its latents over the training clips.

    Attributes:
        nets: `encoder` and `decoder`, once fitted or loaded.
        facts: `clip_shape` (T, C, H, W), and `latent_mean` and `latent_std` of each channel of a grid or number of a vector.
    """

    def __init__(self, params: AutoencoderParams, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.nets: dict[str, Any] = {name: checkpoint.nets[name] for name in ("encoder", "decoder")} if checkpoint else {}
        self.facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one clip's latent, (c, t, h, w) or (c,)."""
        return latent_shape(self.params.latent, self.params.size, self.facts["clip_shape"])

    def fit(self, clips: ClipSource, hook: StateHook, seed: int) -> dict[str, list[float]]:
        """Train encoder and decoder, then measure the latents; a resumed run ends with the same weights.

        Returns:
            The losses of the phases "autoencoder" and, with an adversary, "adversarial".

        Raises:
            ValueError: for clips of one frame, or frames smaller than 16 pixels.
        """
        shape = list(clips.read([0]).frames.shape[1:])
        frames, channels, height, width = shape
        if frames < 2 or min(height, width) < 16:
            raise ValueError(f"animating stills needs clips of at least 2 frames of 16x16 pixels, but they have {frames} of "
                             f"{height}x{width}")
        wanted = self.params
        seed = seed if wanted.seed is None else wanted.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "autoencoder"))
            self.nets["encoder"] = ClipEncoder(channels, wanted.width, wanted.latent, wanted.size)
            self.nets["decoder"] = ClipDecoder(channels, frames, height, width, wanted.features, wanted.latent, wanted.size,
                                               wanted.residual)
            adversary = Adversary(wanted.adversary, channels) if wanted.adversary else None
        both = self.nets["encoder"], self.nets["decoder"]
        losses = {"autoencoder": fit(_Autoencoder(*both), _autoencoder_loss(clips, wanted, wanted.train), wanted.train,
                                     phase="autoencoder", seed=seed, hook=hook)}
        if adversary:
            train = adversary.params.train
            losses["adversarial"] = fit(_Autoencoder(*both, adversary), _autoencoder_loss(clips, wanted, train), train,
                                        phase="adversarial", seed=seed, hook=hook)
        self.facts = {"clip_shape": shape, **self._measure(clips)}
        return losses

    def _measure(self, clips: ClipSource) -> dict[str, list[float]]:
        """Mean and standard deviation of the training clips' latents, of each channel or each number of a vector."""
        rows = spread(len(clips), MEASURED)
        parts = [self.encode(clips.read(rows[start : start + READ_TOGETHER]).frames)
                 for start in range(0, len(rows), READ_TOGETHER)]
        latents = torch.cat(parts).double().transpose(0, 1).flatten(1)
        return {"latent_mean": latents.mean(1).tolist(), "latent_std": latents.std(1, correction=0).clamp_min(1e-6).tolist()}

    @torch.no_grad()
    def encode(self, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Clips (B, T, C, H, W) -> latents (B, c, t, h, w) or (B, c): the posterior's mean, or with `rng` a draw from it."""
        mean, log_variance = self.nets["encoder"].to(frames.device).eval()(frames)
        if rng is None:
            found: Tensor = mean
        else:
            found = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=rng).to(mean)
        return found

    def standardise(self, latents: Tensor) -> Tensor:
        """Latents (B, ...) by the training clips' mean and standard deviation."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, in the shape of one latent of the batch."""
        shape = (-1, *[1] * (latents.dim() - 2))
        mean, std = (torch.tensor(self.facts[name]).view(shape).to(latents) for name in ("latent_mean", "latent_std"))
        return mean, std

    @torch.no_grad()
    def decode(self, first: Tensor, latents: Tensor) -> Tensor:
        """First frames (B, C, H, W) and the autoencoder's latents -> clips (B, T, C, H, W) in [-1, 1] on the CPU."""
        clips: Tensor = self.nets["decoder"].to(first.device).eval()(first, latents)
        return clips.float().clamp(-1, 1).cpu()

    def reconstruct(self, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Clips (B, T, C, H, W) through encoder and decoder, on the CPU; frame 0 stays as it is.

        Args:
            rng: draws the latents from their posterior; None takes its mean.
        """
        return self.decode(frames[:, 0], self.encode(frames, rng))

    def stills(self, conditions: Condition, seeds: Sequence[int]) -> Tensor:
        """The stills (B, C, H, W) that conditions ask to be animated, once each with its own seed.

        Raises:
            ValueError: without stills, for stills of another shape than the training clips' frames, or not one seed a
                condition.
        """
        if len(seeds) != len(conditions):
            raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
        if conditions.reference is None:
            raise ValueError("this generator animates stills, but the conditions have none; use conditions of kind stills or "
                             "clips")
        if list(conditions.reference.shape[2:]) != (shape := self.facts["clip_shape"][1:]):
            raise ValueError(f"stills have shape {list(conditions.reference.shape[2:])}, but the checkpoint was trained on "
                             f"{shape} (channels, height, width)")
        return conditions.reference[:, 0]


class LatentAnimator(ABC):
    """What the generators of `Dynamics` have in common: all but how a latent is drawn for a still (`animate`) and learned."""

    dynamics: Dynamics

    @abstractmethod
    def animate(self, stills: Tensor, seeds: Sequence[int], sampling: Any, device: str = "cpu") -> Tensor:
        """Stills (B, C, H, W) of the training clips' shape and B seeds -> clips (B, T, C, H, W) in [-1, 1] on the CPU."""

    def draws(self, seeds: Sequence[int], sampling: Any) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Any, device: str = "cpu") -> ClipBatch:
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
        return ClipBatch(conditions.ids, self.animate(self.dynamics.stills(conditions, seeds), seeds, sampling, device),
                         conditions)

    def reconstruct(self, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Clips (B, T, C, H, W) through the autoencoder alone; see `Dynamics.reconstruct`."""
        return self.dynamics.reconstruct(frames, rng)


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
