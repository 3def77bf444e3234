"""Diffusion of whole clips as volumes: what VDM and LVDM have in common, pixels or latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDPMScheduler
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.class_turns import ClassTurns
from models.clip import Condition, DescribedClips
from models.diffusion.latent_sampler import Solver, denoise_latents, target
from models.seeding import generator
from models.trainer import Loss, TrainParams


class Sampling(BaseModel):
    """What sampling needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: Solver = "fast"
    steps: int = Field(20, gt=0, le=1000)
    guidance: float = Field(1.0, ge=1)


def numbers(labels: Sequence[str], known: Sequence[str], device: torch.device | str) -> Tensor:
    """(B,) class numbers; K, the null class, for no label.

    Raises:
        ValueError: for a class that is not known.
    """
    place = {label: number for number, label in enumerate(known)} | {"": len(known)}
    if strange := set(labels) - set(place):
        raise ValueError(f"conditions ask for class {', '.join(sorted(strange))}, but the checkpoint knows {', '.join(known)}; "
                         "train it on that class")
    return torch.tensor([place[label] for label in labels], device=device)


def volume_loss(clips: DescribedClips, train: TrainParams, schedule: DDPMScheduler, known: Sequence[str], drop: float,
                even_classes: bool, encode: Callable[[Tensor], Tensor]) -> Loss:
    """Mean squared error on whole clips, the class dropped with chance `drop`; `encode` takes frames on the net's device."""
    turns = ClassTurns(clips.labels, even_classes)

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        device = next(net.parameters()).device
        batch = clips.read(turns.draw(train.batch_size, rng))
        x = encode(batch.frames.to(device))
        labels = numbers(batch.condition.labels, known, device)
        kept = (torch.rand(len(batch), generator=rng) >= drop).to(device)
        t = torch.randint(len(schedule.betas), (len(batch),), generator=rng).to(device)
        noise = torch.randn(x.shape, generator=rng).to(device)
        wanted = target(schedule, x, noise, t)
        found = net(schedule.add_noise(x, noise, t), t, labels.where(kept, len(known)))
        return (found.float() - wanted).square().mean()

    return loss


def sample_volumes(net: nn.Module, schedule: DDPMScheduler, known: Sequence[str], conditions: Condition, seeds: Sequence[int],
                   shape: Sequence[int], sampling: Sampling, device: str) -> Tensor:
    """(B, *shape) for each condition's class and seed, on `device`.

    Raises:
        ValueError: for a class that is not known, or not one seed a condition.
    """
    if len(seeds) != len(conditions):
        raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
    labels = numbers(conditions.labels, known, device)
    none = torch.full_like(labels, len(known))

    def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        if not guided:
            return net(x, t, labels), None
        found, base = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, none])).chunk(2)
        return found, base

    noise = torch.stack([torch.randn(*shape, generator=generator(seed)) for seed in seeds]).to(device)
    return denoise_latents(predict, schedule, noise, solver=sampling.solver, steps=sampling.steps, guidance=sampling.guidance,
                           interval=(0, 1))
