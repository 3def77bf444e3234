"""The one sampling loop, over a diffusers scheduler, with every clip's own generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

Solver = Literal["fast", "ancestral"]
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_t, t (B,)) -> (prediction, v), both (B, C, H, W)."""
Gradient = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t (B,)) -> gradient of the log-likelihood, already multiplied by gamma."""


def denoise(predict: Predict, schedule: DDPMScheduler, shape: Sequence[int], generators: Sequence[torch.Generator], *,
            solver: Solver, steps: int, gradient: Gradient | None = None, device: str = "cpu") -> Tensor:
    """From noise to x_0 in [-1, 1].

    Args:
        predict: the (combined) denoiser.
        schedule: the training schedule; its prediction type says what `predict` returns.
        shape: (C, H, W) of one sample.
        generators: one a sample, on the CPU; a generator listed twice serves its samples in order, so a sample's numbers
            depend on its own generator only.
        solver: "ancestral" draws from p(x_{t-1} | x_t) with the learned variance, respaced to `steps` (1000 is the full
            chain; beta and the variance's range are taken from the kept abar); "fast" is DPM-Solver++ (2M), which uses no
            variance.
        gradient: x_{t-1} += sigma^2 gradient(x_t), Eq. 9. With the fast solver sigma^2 is the respaced beta~.

    Returns:
        (B, C, H, W) float32, B the number of generators.
    """
    stepper = _scheduler(schedule, solver)
    stepper.set_timesteps(steps)
    x = torch.stack([torch.randn(*shape, generator=own) for own in generators]).to(device)
    kept: list[int] = stepper.timesteps.tolist()
    for t, previous in zip(kept, [*kept[1:], -1], strict=True):
        at = torch.full((len(x),), t, device=device)
        with torch.no_grad():
            prediction, v = predict(x, at)
        shift: Tensor | float = 0.0
        if gradient is not None:
            shift = gradient(x, at) * _variance(schedule, t, previous, v if solver == "ancestral" else None)
        with torch.no_grad():
            if solver == "ancestral":
                x = stepper.step(torch.cat([prediction, v], 1), t, x, generator=list(generators)).prev_sample
            else:
                x = stepper.step(prediction, t, x).prev_sample
            x = x + shift
    return x.clamp(-1, 1)


def _scheduler(schedule: DDPMScheduler, solver: Solver) -> DDPMScheduler | DPMSolverMultistepScheduler:
    if solver == "ancestral":
        return DDPMScheduler.from_config(schedule.config, clip_sample=True, timestep_spacing="linspace")
    # Lu's uniform steps in log-SNR: with steps uniform in t the last one is so long that fine texture is lost. Measured with
    # exact Gaussian predictions, 10 steps: a standard deviation of 0.15 comes out as 0.14 with them, 0.10 without.
    # A "dynamic" threshold between 1 and 1 is clipping x_0 to [-1, 1], which this scheduler has no plain option for
    return DPMSolverMultistepScheduler.from_config(
        schedule.config, variance_type=None, algorithm_type="dpmsolver++", solver_order=2, use_lu_lambdas=True,
        thresholding=True, dynamic_thresholding_ratio=1.0, sample_max_value=1.0,
    )


def _variance(schedule: DDPMScheduler, t: int, previous: int, v: Tensor | None) -> Tensor | float:
    """sigma^2 of the step t -> previous: learned when v is given, else beta~; zero at the last step."""
    if previous < 0:
        return 0.0
    abar, before = float(schedule.alphas_cumprod[t]), float(schedule.alphas_cumprod[previous])
    beta = 1 - abar / before
    posterior = beta * (1 - before) / (1 - abar)
    if v is None:
        return posterior
    f = (v + 1) / 2
    return torch.exp(f * torch.tensor(beta).log() + (1 - f) * torch.tensor(posterior).log())
