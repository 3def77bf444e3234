"""The sampling loop against targets with a known answer, and its variance against the formula for kept timesteps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from models.diffusion.sampler import Predict, Solver, _scheduler, _variance, denoise
from models.seeding import generator

DENOISER = Denoiser("v_prediction")


def exact(mean: float, deviation: float) -> Predict:
    """v-prediction of N(mean, deviation^2), with the exact posterior variance as its v."""

    def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = DENOISER.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        epsilon = (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * deviation**2 + 1 - abar)
        x0 = (abar.sqrt() * deviation**2 * x + (1 - abar) * mean) / (abar * deviation**2 + 1 - abar)
        return abar.sqrt() * epsilon - (1 - abar).sqrt() * x0, torch.full_like(x, -1.0)

    return predict


@pytest.mark.parametrize(("solver", "steps"), [("ancestral", 1000), ("ancestral", 100), ("fast", 20), ("fast", 10)])
def test_a_gaussian_comes_back(solver: Solver, steps: int) -> None:
    got = denoise(exact(0.3, 0.15), DENOISER.schedule, (1, 80, 80), [generator(0)], solver=solver, steps=steps)
    assert abs(float(got.mean()) - 0.3) < 0.01
    assert abs(float(got.std()) - 0.15) < 0.02


@pytest.mark.parametrize("v", [-1.0, -0.2, 1.0])
def test_respaced_variance_is_relative_to_the_kept_steps(v: float) -> None:
    """Both ours (guidance) and the scheduler's (noise): log sigma^2 between beta and beta~ of the kept abar, not of all T."""
    abar = DENOISER.schedule.alphas_cumprod.double().numpy()
    scheduler = _scheduler(DENOISER.schedule, "ancestral")
    scheduler.set_timesteps(25)
    kept = scheduler.timesteps.tolist()
    assert kept[0] == 999 and kept[-1] == 0
    for t, previous in itertools.pairwise(kept[1:]):
        beta = 1 - abar[t] / abar[previous]
        posterior = beta * (1 - abar[previous]) / (1 - abar[t])
        want = (1 + v) / 2 * np.log(beta) + (1 - v) / 2 * np.log(posterior)
        theirs = float(scheduler._get_variance(t, predicted_variance=torch.tensor(v)))
        ours = float(torch.log(torch.as_tensor(_variance(DENOISER.schedule, t, previous, torch.tensor(v)))))
        assert theirs == pytest.approx(want, abs=1e-2)
        assert ours == pytest.approx(want, abs=1e-2)


@pytest.mark.parametrize("solver", ["ancestral", "fast"])
def test_a_sample_needs_its_own_generator_only(solver: Solver) -> None:
    def run(seeds: list[int]) -> Tensor:
        rngs = [generator(seed) for seed in seeds]
        return denoise(exact(0.0, 0.3), DENOISER.schedule, (1, 2, 2), rngs, solver=solver, steps=5)

    assert torch.equal(run([1, 2, 3])[1], run([9, 2, 7])[1])
    assert not torch.equal(run([1, 2, 3])[1], run([1, 5, 3])[1])


def test_samples_are_clipped() -> None:
    got = denoise(exact(3.0, 0.1), DENOISER.schedule, (1, 2, 2), [generator(0)] * 4, solver="fast", steps=5)
    assert got.max() <= 1
