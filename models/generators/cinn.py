"""cINN: a still becomes a clip through a conditional normalising flow (Dorkenwald et al., CVPR 2021). A baseline.

Stage 1 is LDDM's, weight for weight where both entries give it the same `seed`; stage 2 is a flow of the same latent where LDDM
has a diffusion model. The flow is trained by exact likelihood, and a clip takes one pass through it, not twenty.

As in cINN's code, the flow learns draws from the autoencoder's posterior, which are what the decoder was trained on; LDDM
learns the posterior's means. Theirs has a vector as latent, twenty couplings of eight times its width, and an autoencoder of
frames, trained beforehand, that tells the flow of the first one; here a small encoder learns that with the flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.clip import ClipSource, DescribedClips
from models.dynamics import AutoencoderParams, Dynamics, LatentAnimator
from models.generators import Checkpoint
from models.nets.latent_flow import LatentFlow
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit


class FlowParams(BaseModel):
    """Stage 2. `batch_size` counts clips.

    At few clips a density may grow without bound: with the means of 48 clips as latents, 400 steps brought these to -1.3 nats a
    number (a vector; a grid: -1.5), other clips to 5 (73), and samples up to 30 (14) standard deviations out. Draws from the
    posterior prevent that while it is wide (-0.6 and -0.2; 0.3 and 0.5, when it was 0.1 and 0.26 of the latents' spread), but
    a KL of little weight may let it shrink; `noise`, 0.1 by default, is the least spread there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    couplings: int = Field(8, gt=0)
    width: int = Field(128, gt=0, description="of a coupling's hidden layers")
    depth: int = Field(2, gt=0, description="number of a coupling's hidden layers")
    context: int = Field(32, gt=0, multiple_of=16, description="length of what the flow is told of the first frame")
    noise: float = Field(0.1, ge=0, description="standard deviation of noise on standardised latents in training")
    train: TrainParams


class Params(BaseModel):
    """What training needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    autoencoder: AutoencoderParams
    flow: FlowParams


class Sampling(BaseModel):
    """What sampling needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, ge=0, description="of the noise: below 1 likelier motions, and less different ones")


def build(params: Params, checkpoint: Checkpoint | None = None) -> Cinn:
    return Cinn(params, checkpoint)


class Cinn(LatentAnimator):
    """See the module. Networks: `encoder`, `decoder`, `flow`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.dynamics = Dynamics(params.autoencoder, checkpoint)
        self._flow: Any = checkpoint.nets["flow"] if checkpoint else None

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train both stages; a resumed run ends with the same weights.

        Raises:
            ValueError: for clips of one frame, or frames smaller than 16 pixels.
        """
        losses, wanted = self.dynamics.fit(clips, hook, seed), self.params.flow
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "flow"))
            self._flow = LatentFlow(prod(self.dynamics.latent_shape), self.dynamics.facts["clip_shape"][1], wanted.context,
                                    wanted.couplings, wanted.width, wanted.depth)
        losses["flow"] = fit(self._flow, self._loss(clips), wanted.train, phase="flow", seed=seed, hook=hook)
        nets = {**self.dynamics.nets, "flow": self._flow}
        return Checkpoint("cinn", self.params.model_dump(mode="json"), nets, self.dynamics.facts, losses)

    def _loss(self, clips: ClipSource) -> Loss:
        """Negative log likelihood of standardised latents, in nats a number: 1.42 for the standard normal."""

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            device = next(net.parameters()).device
            rows = torch.randint(len(clips), (self.params.flow.train.batch_size,), generator=rng).tolist()
            frames = clips.read(rows).frames.to(device)
            latents = self.dynamics.standardise(self.dynamics.encode(frames, rng)).flatten(1)
            noise = torch.randn(latents.shape, generator=rng).to(latents)
            return -net(latents + self.params.flow.noise * noise, frames[:, 0]).mean() / latents.shape[1]

        return loss

    @torch.no_grad()
    def animate(self, stills: Tensor, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> Tensor:
        """Stills (B, C, H, W) of the training clips' shape and B seeds -> clips (B, T, C, H, W) in [-1, 1] on the CPU."""
        first, flow, shape = stills.to(device), self._flow.to(device).eval(), self.dynamics.latent_shape
        noise = torch.stack([torch.randn(prod(shape), generator=generator(seed)) for seed in seeds]).to(device)
        latents = flow.from_noise(sampling.temperature * noise, first).unflatten(1, shape)
        return self.dynamics.decode(first, self.dynamics.restore(latents))
