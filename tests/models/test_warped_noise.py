"""Noise along motion: white within a frame whatever the field, and correlated between frames exactly as said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.diffusion.warped_noise import warped_noise
from models.seeding import generator

FACTOR = 4


def shifted(dx: int, clips: int = 1, frames: int = 3, side: int = 32) -> Tensor:
    field = torch.zeros(clips, frames - 1, 2, side, side)
    field[:, :, 0] = dx
    return field


def test_whole_latent_pixels_are_carried_as_they_are() -> None:
    noise = warped_noise(shifted(FACTOR), 3, FACTOR, 1.0, [generator(0)])
    assert noise.shape == (1, 3, 3, 8, 8)
    torch.testing.assert_close(noise[:, 1:, :, :, 1:], noise[:, :-1, :, :, :-1])
    assert not torch.isclose(noise[:, 1:, :, :, 0], noise[:, :-1, :, :, 0]).any()  # what comes in is fresh


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_half_a_latent_pixel_is_shared_by_halves(correlation: float) -> None:
    """By arithmetic: a latent pixel shares 8 of its 16 pixels with its own place and 8 with the next one."""
    noise = warped_noise(shifted(FACTOR // 2, side=256), 4, FACTOR, correlation, [generator(1)])[0]
    now, after = noise[0], noise[1]
    same, beside = (now * after)[..., 1:].mean(), (now[..., :-1] * after[..., 1:]).mean()
    assert abs(float(same) - correlation / 2) < 0.03 and abs(float(beside) - correlation / 2) < 0.03
    two = (noise[0][..., :-1] * noise[2][..., 1:])[..., 1:].mean()  # after two steps it has moved by one place
    assert abs(float(two) - correlation**2) < 0.04


def test_every_frame_is_white_and_standard_whatever_the_field() -> None:
    field = torch.randint(-3, 4, (400, 3, 2, 8, 8), generator=generator(2)).float()
    noise = warped_noise(field, 1, 2, 0.9, [generator(seed) for seed in range(400)])[:, :, 0].flatten(2)  # (clips, T, 16)
    for frame in range(4):
        covariance = noise[:, frame].T @ noise[:, frame] / 400
        assert (covariance - torch.eye(16)).abs().max() < 0.3
        assert (covariance - torch.eye(16)).abs().mean() < 0.06


def test_a_clip_has_its_own_noise_in_every_batch() -> None:
    field = torch.randint(-2, 3, (3, 2, 2, 8, 8), generator=generator(3)).float()
    together = warped_noise(field, 2, 4, 0.8, [generator(seed) for seed in (5, 6, 7)])
    assert torch.equal(together[1:2], warped_noise(field[1:2], 2, 4, 0.8, [generator(6)]))
