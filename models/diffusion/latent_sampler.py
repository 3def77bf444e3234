"""Sampling of latents with classifier-free guidance, over diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from models.diffusion.denoiser import Prediction

Schedule = Literal["scaled_linear", "linear", "cosine"]
Solver = Literal["fast", "ddim"]
Predict = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""(x_t, t (B,), guided) -> conditional prediction and, if guided, the unconditional one."""


def latent_schedule(schedule: Schedule, prediction: Prediction, steps: int = 1000) -> DDPMScheduler:
    """Stable Diffusion's scaled-linear beta from 0.00085 to 0.012, which Ctrl-GenAug takes over, AnimateDiff's linear one
    between the same ends, or IDDPM's cosine."""
    kind = "squaredcos_cap_v2" if schedule == "cosine" else schedule
    return DDPMScheduler(steps, beta_start=0.00085, beta_end=0.012, beta_schedule=kind, prediction_type=prediction,
                         clip_sample=False)


def target(schedule: DDPMScheduler, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a network is trained to predict of `x` with this noise at (B,) timesteps: the noise, or v."""
    wanted: Tensor = noise if schedule.config.prediction_type == "epsilon" else schedule.get_velocity(x, noise, t)
    return wanted


def denoise_latents(predict: Predict, schedule: DDPMScheduler, noise: Tensor, *, solver: Solver, steps: int, guidance: float,
                    interval: tuple[float, float], draw: Callable[[], Tensor] | None = None) -> Tensor:
    """From noise to z_0.

    Args:
        schedule: the training schedule; its prediction type says what `predict` returns.
        noise: (B, ...) standard normal, on the device of `predict`.
        solver: "ddim" (eta 0, the paper's, 200 steps) or "fast", DPM-Solver++ (2M) with uniform log-SNR steps.
        guidance: w of u + w (c - u); 1 is the conditional prediction alone.
        interval: shares of T between which guidance applies (Kynkaanniemi et al. 2024); outside, c alone is computed.
        draw: fresh noise of that shape for every step of ddim, which makes it DDPM (eta 1).

    Returns:
        float32, shaped as `noise`.
    """
    stepper = _scheduler(schedule, solver)
    stepper.set_timesteps(steps)
    x = noise
    length = schedule.config.num_train_timesteps
    with torch.no_grad():
        for t in stepper.timesteps.tolist():
            guided = guidance != 1 and interval[0] <= t / length <= interval[1]
            prediction, base = predict(x, torch.full((len(x),), t, device=x.device), guided)
            prediction = prediction.float()  # the network may compute in half precision, the solver does not
            if base is not None:
                prediction = base + guidance * (prediction - base)
            stochastic = {"eta": 1.0, "variance_noise": draw()} if draw else {}
            x = stepper.step(prediction, t, x, **stochastic).prev_sample
    return x


def _scheduler(schedule: DDPMScheduler, solver: Solver) -> DDIMScheduler | DPMSolverMultistepScheduler:
    if solver == "ddim":
        # SD's leading spacing with offset 1 never starts at pure noise; trailing does
        return DDIMScheduler.from_config(schedule.config, timestep_spacing="trailing", set_alpha_to_one=False)
    return DPMSolverMultistepScheduler.from_config(schedule.config, variance_type=None, algorithm_type="dpmsolver++",
                                                   solver_order=2, use_lu_lambdas=True)
