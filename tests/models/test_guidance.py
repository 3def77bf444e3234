"""The guidance equations against exact Gaussians, in one dimension (prior N(0, 1), conditionals N(m, 0.05^2))."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from models.diffusion.guidance import OMEGA, combine, mask_gradient, needs_base
from models.diffusion.sampler import Solver, denoise
from models.seeding import generator

DENOISER = Denoiser("epsilon")


def gaussian_epsilon(mean: float, deviation: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact epsilon-prediction for x_0 ~ N(mean, deviation^2): minus sqrt(1 - abar) times the score."""

    def epsilon(x: Tensor, t: Tensor) -> Tensor:
        abar = DENOISER.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * deviation**2 + 1 - abar)

    return epsilon


def run(omega: float, means: list[float], deviation: float, solver: Solver = "ancestral", n: int = 4000) -> Tensor:
    base, conditioned = gaussian_epsilon(0.0, 1.0), [gaussian_epsilon(mean, deviation) for mean in means]

    def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        v = torch.full_like(x, -1.0)  # posterior variance
        return combine(base(x, t), [one(x, t) for one in conditioned], omega), v

    # every pixel is a sample of its own: one "frame" of n of them needs one generator
    return denoise(predict, DENOISER.schedule, (1, 1, n), [generator(0)], solver=solver, steps=250).flatten()


def test_printed_omega_ends_at_the_clipping_bound_on_the_wrong_side() -> None:
    """-2.5 as printed pushes away from the conditioning frame at +0.8."""
    got = run(OMEGA["literal"].concluding, [0.8], math.sqrt(0.05))
    assert got.median() == -1
    assert (got < -0.9).float().mean() > 0.9


@pytest.mark.parametrize("solver", ["ancestral", "fast"])
def test_default_omega_is_strong_guidance_towards_the_frame(solver: Solver) -> None:
    got = run(OMEGA["default"].concluding, [0.8], math.sqrt(0.05), solver)
    assert abs(float(got.mean()) - 0.84) < 0.09
    assert float(got.std()) < math.sqrt(0.05)  # guidance sharpens


@pytest.mark.parametrize("solver", ["ancestral", "fast"])
def test_bayes_omega_with_one_frame_is_the_conditional_itself(solver: Solver) -> None:
    got = run(1.0, [0.4], 0.1, solver)
    assert abs(float(got.mean()) - 0.4) < 0.02
    assert abs(float(got.std()) - 0.1) < 0.02


def test_two_frames_pull_between_them() -> None:
    got = run(OMEGA["default"].intermediate, [0.8, 0.4], math.sqrt(0.05))
    assert abs(float(got.mean()) - 0.64) < 0.1


def test_two_frames_under_eq_7_weigh_minus_one_one_one() -> None:
    """With independent frames p(x|F1,F2) = p(x|F1) p(x|F2) / p(x), whose precision and mean are known."""
    means, variance = (0.5, 0.1), 0.04
    precision = 2 / variance - 1
    want_mean, want_deviation = sum(means) / variance / precision, precision**-0.5
    got = run(OMEGA["bayes"].intermediate, list(means), math.sqrt(variance))
    # the combination is exact at t = 0 only; on the way the product of diffused densities is not the diffused product
    assert abs(float(got.mean()) - want_mean) < 0.05
    assert abs(float(got.std()) - want_deviation) < 0.06


def test_weights_sum_to_one() -> None:
    one = torch.ones(2, 1, 1, 1)
    for omega in (-2.5, 0.7, 1.0, 3.5):
        assert torch.allclose(combine(one, [one], omega), one)
        assert torch.allclose(combine(one, [one, one], omega), one)


def test_combining_v_is_combining_epsilon() -> None:
    x, first, second = torch.randn(3, 4, 1, 2, 2)
    abar = torch.tensor(0.3)

    def to_v(epsilon: Tensor) -> Tensor:
        return (epsilon - (1 - abar).sqrt() * x) / abar.sqrt()

    assert torch.allclose(to_v(combine(first, [second], 3.5)), combine(to_v(first), [to_v(second)], 3.5), atol=1e-5)


def test_base_is_skipped_only_without_weight() -> None:
    assert not needs_base(1.0, 1)
    assert not needs_base(0.5, 2)
    assert needs_base(0.7, 1)
    assert needs_base(1.0, 2)


def logistic(weight: float) -> Callable[[Tensor], Tensor]:
    """A psi whose foreground logit is weight * x, so that the gradient has a closed form."""
    return lambda x: torch.cat([torch.zeros_like(x), weight * x], 1)


def test_gradient_is_the_closed_form() -> None:
    """d/dx sum [M log s + (1 - M) log(1 - s)] with s = sigmoid(a x) is a (M - s)."""
    x = torch.randn(3, 1, 4, 4)
    masks = (torch.rand(3, 4, 4) > 0.5).to(torch.uint8)
    want = 2.0 * (masks[:, None] - torch.sigmoid(2.0 * x))
    assert torch.allclose(mask_gradient(logistic(2.0), x, masks, "sum", 1e9), want, atol=1e-5)
    area = (masks > 0).sum((1, 2)).view(-1, 1, 1, 1)
    assert torch.allclose(mask_gradient(logistic(2.0), x, masks, "mean", 1e9), want / area, atol=1e-5)


def test_gradient_is_clipped_by_norm_frame_by_frame() -> None:
    x = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 9.0)])
    got = mask_gradient(logistic(1.0), x, torch.ones(2, 4, 4, dtype=torch.uint8), "sum", 0.5)
    assert torch.allclose(got[0].norm(), torch.tensor(0.5))
    assert got[1].norm() < 0.01  # already small: untouched


@pytest.mark.parametrize("solver", ["ancestral", "fast"])
def test_guidance_raises_contrast_by_a_bounded_amount(solver: Solver) -> None:
    """Pulled towards the mask, samples of the same seeds move up; gamma 0 leaves them alone."""
    def sample(gamma: float) -> Tensor:
        def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return gaussian_epsilon(0.0, 0.2)(x, t), torch.full_like(x, -1.0)

        def pull(x: Tensor, t: Tensor) -> Tensor:
            return gamma * mask_gradient(logistic(1.0), x, torch.ones(len(x), 1, 1, dtype=torch.uint8), "sum", 1.0)

        rngs = [generator(seed) for seed in range(500)]
        return denoise(predict, DENOISER.schedule, (1, 1, 1), rngs, solver=solver, steps=20, gradient=pull).flatten()

    plain, guided, strong = sample(0.0), sample(5.0), sample(15.0)
    assert plain.mean().abs() < 0.03
    assert plain.mean() + 0.02 < guided.mean() < strong.mean() <= 1
