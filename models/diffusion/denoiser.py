"""A network as a denoiser with learned variance: the IDDPM hybrid loss, and predictions for the samplers.

Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models (2021), whose constants SF-VD takes over.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

Prediction = Literal["epsilon", "v_prediction"]
VLB_WEIGHT = 1e-3  # lambda of the hybrid loss


def noise_schedule(prediction: Prediction, steps: int = 1000) -> DDPMScheduler:
    """IDDPM's cosine schedule: abar(t) = cos^2((t/T + 0.008) / 1.008 * pi/2) as ratios, beta capped at 0.999."""
    return DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, variance_type="learned_range")


class Denoiser:
    """Loss and predictions of a network that outputs 2C channels: the prediction and v, which interpolates the variance.

    `prediction` is what the first C channels mean. The paper predicts epsilon. The v-prediction learns faster in short runs,
    and since the weights of Eqs. 4, 6 and 8 sum to one and v is affine in epsilon at fixed x_t, combining either is the same.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.schedule = noise_schedule(prediction)
        self.prediction = prediction
        abar = self.schedule.alphas_cumprod.double()
        before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        beta = self.schedule.betas.double()
        posterior = beta * (1 - before) / (1 - abar)
        self._abar, self._log_beta = abar, beta.log()
        # log beta~_1 is minus infinity: IDDPM reuses that of the next step
        self._log_posterior = torch.cat([posterior[1:2], posterior[1:]]).log()
        self._mean_x0 = beta * before.sqrt() / (1 - abar)
        self._mean_xt = (1 - before) * (1 - beta).sqrt() / (1 - abar)

    def loss(self, net: nn.Module, x0: Tensor, noise: Tensor, t: Tensor, conditioning: Tensor,
             labels: Tensor | None = None) -> Tensor:
        """MSE + 0.001 L_vlb, L_vlb estimated as T times the term of the drawn t, with stopped gradient on the mean.

        Args:
            net: called as net(cat(x_t, conditioning), t, labels).sample with 2C channels.
            x0, noise: (B, C, H, W), x0 in [-1, 1].
            t: (B,) integer timesteps.
            conditioning: (B, D, H, W) channels concatenated to x_t.
            labels: (B,) frame distances for networks that take them.
        """
        x_t = self.schedule.add_noise(x0, noise, t)
        prediction, v = net(torch.cat([x_t, conditioning], 1), t, labels).sample.float().chunk(2, 1)
        target = noise if self.prediction == "epsilon" else self.schedule.get_velocity(x0, noise, t)
        variational = self.variational_term(prediction.detach(), v, x0, x_t, t)
        return (prediction - target).square().mean() + VLB_WEIGHT * len(self._abar) * variational.mean()

    def variational_term(self, prediction: Tensor, v: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """(B,) the term L_t of the bound in bits per dimension; at t = 0 the likelihood of x0 quantised to 8 bits."""
        mean, log_variance = self.posterior(self.to_x0(prediction, x_t, t), x_t, t), self.log_variance(v, t)
        true_mean, true_log_variance = self.posterior(x0, x_t, t), _at(self._log_posterior, t, x_t)
        kl = 0.5 * (log_variance - true_log_variance - 1 + (true_log_variance - log_variance).exp()
                    + (true_mean - mean).square() * (-log_variance).exp())
        decoder = -discretised_log_likelihood(x0, mean, 0.5 * log_variance)
        return torch.where(t == 0, decoder.flatten(1).mean(1), kl.flatten(1).mean(1)) / math.log(2)

    def log_variance(self, v: Tensor, t: Tensor) -> Tensor:
        """log sigma^2 = f log beta_t + (1 - f) log beta~_t with f = (v + 1) / 2 (SF-VD Eq. 1 writes v in [0, 1])."""
        f = (v + 1) / 2
        return f * _at(self._log_beta, t, v) + (1 - f) * _at(self._log_posterior, t, v)

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0)."""
        return _at(self._mean_x0, t, x_t) * x0 + _at(self._mean_xt, t, x_t) * x_t

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The x_0 a prediction stands for, not clipped."""
        abar = _at(self._abar, t, x_t)
        if self.prediction == "epsilon":
            return (x_t - (1 - abar).sqrt() * prediction) / abar.sqrt()
        return abar.sqrt() * x_t - (1 - abar).sqrt() * prediction


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] as (B, 1, 1, 1) on the device of `like`."""
    return table.to(like.device, torch.float32)[t.to(like.device)].view(-1, *[1] * (like.ndim - 1))


def discretised_log_likelihood(x0: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of 8-bit values in [-1, 1] under a Gaussian, bin half-width 1/255, open bins at both ends.

    The normal distribution function is torch's exact one where the reference code uses a tanh approximation.
    """
    centred, inverse = x0 - mean, (-log_scale).exp()
    upper = torch.special.ndtr(inverse * (centred + 1 / 255))
    lower = torch.special.ndtr(inverse * (centred - 1 / 255))
    inside = (upper - lower).clamp_min(1e-12).log()
    ends = torch.where(x0 > 0.999, (1 - lower).clamp_min(1e-12).log(), inside)
    return torch.where(x0 < -0.999, upper.clamp_min(1e-12).log(), ends)
