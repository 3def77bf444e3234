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

from models.clip import ClipSource, DescribedClips
from models.diffusion.denoiser import Prediction
from models.diffusion.latent_sampler import Schedule, denoise_latents, latent_schedule, target
from models.dynamics import AutoencoderParams, Dynamics, LatentAnimator
from models.generators import Checkpoint
from models.nets.dynamics_denoiser import GridDenoiser, VectorDenoiser
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit


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


class Lddm(LatentAnimator):
    """See the module. Networks: `encoder`, `decoder`, `denoiser`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.schedule = latent_schedule(params.schedule, params.prediction)
        self.dynamics = Dynamics(params.autoencoder, checkpoint)
        self._denoiser: Any = checkpoint.nets["denoiser"] if checkpoint else None

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train both stages; a resumed run ends with the same weights.

        Raises:
            ValueError: for clips of one frame, or frames smaller than 16 pixels.
        """
        losses = self.dynamics.fit(clips, hook, seed)
        sizes, wanted, channels = self.params.denoiser, self.params.autoencoder, self.dynamics.facts["clip_shape"][1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "diffusion"))
            self._denoiser = (GridDenoiser(wanted.size, channels, sizes) if wanted.latent == "grid"
                              else VectorDenoiser(wanted.size, channels, *sizes[:2]))
        losses["diffusion"] = fit(self._denoiser, self._loss(clips), self.params.diffusion, phase="diffusion", seed=seed,
                                  hook=hook)
        nets = {**self.dynamics.nets, "denoiser": self._denoiser}
        return Checkpoint("lddm", self.params.model_dump(mode="json"), nets, self.dynamics.facts, losses)

    def _loss(self, clips: ClipSource) -> Loss:
        """Mean squared error on standardised latents, t uniform."""

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            device = next(net.parameters()).device
            rows = torch.randint(len(clips), (self.params.diffusion.batch_size,), generator=rng).tolist()
            frames = clips.read(rows).frames.to(device)
            latents = self.dynamics.standardise(self.dynamics.encode(frames))
            t = torch.randint(len(self.schedule.betas), (len(rows),), generator=rng).to(device)
            noise = torch.randn(latents.shape, generator=rng).to(device)
            found = net(self.schedule.add_noise(latents, noise, t), t, frames[:, 0])
            return (found.float() - target(self.schedule, latents, noise, t)).square().mean()

        return loss

    def animate(self, stills: Tensor, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> Tensor:
        """Stills (B, C, H, W) of the training clips' shape and B seeds -> clips (B, T, C, H, W) in [-1, 1] on the CPU."""
        first, denoiser = stills.to(device), self._denoiser.to(device).eval()
        rngs, shape = [generator(seed) for seed in seeds], self.dynamics.latent_shape

        def draw() -> Tensor:
            return torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(device)

        def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, None]:
            return denoiser(x, t, first), None

        latents = denoise_latents(predict, self.schedule, draw(), solver="fast" if sampling.solver == "fast" else "ddim",
                                  steps=sampling.steps, guidance=1, interval=(0, 1),
                                  draw=draw if sampling.solver == "ddpm" else None)
        return self.dynamics.decode(first, self.dynamics.restore(latents))
