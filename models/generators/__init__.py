"""Video generators, one file each. A file offers `Params`, `Sampling` and `build(params, checkpoint=None)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models import plugin
from models.clip import ClipBatch, Condition, DescribedClips
from models.trainer import StateHook


@dataclass(frozen=True)
class Checkpoint:
    """Weights to sample from. `nets` are diffusers `ModelMixin`s, so that each is saved by `save_pretrained`.

    Attributes:
        kind: the module in `models.generators` (or another plug-in package) that can read it.
        params: that module's `Params` as plain JSON values.
        nets: trained networks by name.
        facts: shapes and statistics sampling needs, as plain JSON values (clip shape, number of classes, ...).
        losses: training loss of every step by phase.
    """

    kind: str
    params: dict[str, Any]
    nets: dict[str, nn.Module]
    facts: dict[str, Any]
    losses: dict[str, list[float]]


class ClipGenerator(Protocol):
    """Fits on clips, samples clips."""

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint: ...

    def draws(self, seeds: Sequence[int], sampling: Any) -> list[dict[str, float]]:
        """What is drawn per clip besides noise (SF-VD: gamma), a pure function of the seed; kept as provenance."""
        ...

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Any, device: str = "cpu") -> ClipBatch:
        """One clip per (condition, seed); clip i is a function of condition i, seed i and `sampling` alone."""
        ...


@runtime_checkable
class StillAnimator(ClipGenerator, Protocol):
    """A generator that needs nothing but a still and draws what moves as a latent; `sample` has stills in `reference`."""

    def animate(self, stills: Tensor, seeds: Sequence[int], sampling: Any, device: str = "cpu") -> Tensor:
        """(B, C, H, W) in [-1, 1], shaped as the training clips' frames, and B seeds -> (B, T, C, H, W) on the CPU."""
        ...

    def reconstruct(self, frames: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Clips (B, T, C, H, W) in [-1, 1] through encoder and decoder, on the CPU; frame 0 stays as it is.

        Args:
            rng: CPU generator that the latents are drawn with, from the encoder's posterior; None: its mean.
        """
        ...


def build(kind: str, params: dict[str, Any], checkpoint: Checkpoint | None = None) -> ClipGenerator:
    """The generator of this kind with these parameters; without a checkpoint it has no weights yet."""
    generator: ClipGenerator = plugin.load("models.generators", kind).build(
        plugin.params("models.generators", {"kind": kind, **params}), checkpoint)
    return generator
