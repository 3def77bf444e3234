"""The learned-variance loss against an independent computation in NumPy and SciPy, term by term."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from models.diffusion.denoiser import Denoiser

T = 1000


def tables() -> tuple[np.ndarray, np.ndarray]:
    """beta and abar from the formula, in double precision."""
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return beta, np.cumprod(1 - beta)


def test_schedule_is_the_cosine_formula() -> None:
    beta, abar = tables()
    schedule = Denoiser("epsilon").schedule
    assert np.allclose(schedule.betas, beta, rtol=2e-4)
    assert np.allclose(schedule.alphas_cumprod, abar, rtol=2e-3)


class Fixed(nn.Module):
    """A network that always answers the same."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> SimpleNamespace:
        return SimpleNamespace(sample=self.out)


@pytest.mark.parametrize("t", [0, 1, 5, 400, 998])
def test_hybrid_loss(t: int) -> None:
    rng = np.random.default_rng(t)
    levels = rng.integers(0, 256, (1, 1, 3, 4))
    levels[0, 0, 0, :2] = (0, 255)  # the open end bins
    x0, noise, out = levels / 127.5 - 1, rng.standard_normal((1, 1, 3, 4)), 0.5 * rng.standard_normal((1, 2, 3, 4))
    beta, abar = tables()
    before = np.concatenate([[1.0], abar[:-1]])
    posterior = beta * (1 - before) / (1 - abar)
    x_t = np.sqrt(abar[t]) * x0 + np.sqrt(1 - abar[t]) * noise
    epsilon, v = out[:, :1], out[:, 1:]
    guess = (x_t - np.sqrt(1 - abar[t]) * epsilon) / np.sqrt(abar[t])

    def mean(x: np.ndarray) -> np.ndarray:
        return (beta[t] * np.sqrt(before[t]) * x + (1 - before[t]) * np.sqrt(1 - beta[t]) * x_t) / (1 - abar[t])

    clipped = posterior[max(t, 1)]
    log_variance = (v + 1) / 2 * np.log(beta[t]) + (1 - v) / 2 * np.log(clipped)
    if t == 0:
        scale = np.exp(log_variance / 2)
        low = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
        high = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
        term = -np.log(np.maximum(norm.cdf(high, mean(guess), scale) - norm.cdf(low, mean(guess), scale), 1e-12))
    else:
        variance = np.exp(log_variance)
        term = 0.5 * (np.log(variance / clipped) + (clipped + (mean(x0) - mean(guess)) ** 2) / variance - 1)
    want = ((noise - epsilon) ** 2).mean() + T / 1000 * term.mean() / np.log(2)

    net = Fixed(torch.tensor(out, dtype=torch.float32))
    start, drawn = (torch.tensor(array, dtype=torch.float32) for array in (x0, noise))
    got = Denoiser("epsilon").loss(net, start, drawn, torch.tensor([t]), torch.zeros(1, 0, 3, 4))
    assert float(got.detach()) == pytest.approx(want, rel=1e-2 if t == 0 else 2e-3)  # t = 0 takes small differences of float32

    got.backward()
    grad = net.out.grad
    assert grad is not None
    # the variational term has a stopped gradient on the mean: the prediction sees its squared error only
    assert np.allclose(grad[:, :1], 2 * (epsilon - noise) / epsilon.size, atol=1e-5)
    assert grad[:, 1:].abs().sum() > 0


def test_the_true_variance_minimises_the_bound() -> None:
    """With the exact mean, the term is zero at v = -1 (the posterior variance) and grows with v."""
    denoiser = Denoiser("epsilon")
    x0, noise, t = torch.zeros(1, 1, 8, 8), torch.randn(1, 1, 8, 8), torch.tensor([300])
    x_t = denoiser.schedule.add_noise(x0, noise, t)
    values = [float(denoiser.variational_term(noise, torch.full_like(x0, v), x0, x_t, t)) for v in (-1.0, 0.0, 1.0)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


def test_both_predictions_stand_for_the_same_x0() -> None:
    x0, noise, t = torch.rand(4, 1, 5, 5) * 2 - 1, torch.randn(4, 1, 5, 5), torch.tensor([0, 10, 300, 700])
    for kind in ("epsilon", "v_prediction"):
        denoiser = Denoiser(kind)  # type: ignore[arg-type]
        x_t = denoiser.schedule.add_noise(x0, noise, t)
        target = noise if kind == "epsilon" else denoiser.schedule.get_velocity(x0, noise, t)
        assert torch.allclose(denoiser.to_x0(target, x_t, t), x0, atol=1e-3)
