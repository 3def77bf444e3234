"""Operations do what they are called, to all frames of a clip alike; the rng is all the randomness there is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import rand_augment as operations
from models.rand_augment import GEOMETRIC, INTENSITY, OPERATIONS, Operation, rand_augment
from models.seeding import generator


def clips(batch: int = 4, length: int = 3, channels: int = 1, height: int = 20, width: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(batch, length, channels, height, width, generator=generator(seed)) * 2 - 1


def strength(*values: float) -> Tensor:
    return torch.tensor(values)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3]), st.integers(0, 4), st.floats(0, 10))
def test_shape_range_and_seed(seed: int, channels: int, number: int, magnitude: float) -> None:
    frames = clips(3, 2, channels, 9, 7, seed)
    kept = frames.clone()
    changed = rand_augment(frames, generator(seed), number, magnitude)
    assert changed.shape == frames.shape and changed.dtype == frames.dtype
    assert changed.isfinite().all() and changed.abs().max() <= 1
    assert torch.equal(changed, rand_augment(frames, generator(seed), number, magnitude))
    assert torch.equal(frames, kept)
    assert number or torch.equal(changed, frames)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_stay_equal(name: str, channels: int) -> None:
    frames = clips(4, 1, channels).expand(4, 5, channels, 20, 16)
    changed = OPERATIONS[name](frames, strength(0.9, -0.9, 0.3, -1))
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    frames, strengths = clips(4), strength(0.9, -0.9, 0.3, -1)
    alone = torch.cat([OPERATIONS[name](frames[one : one + 1], strengths[one : one + 1]) for one in range(4)])
    torch.testing.assert_close(OPERATIONS[name](frames, strengths), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("operation", [*GEOMETRIC.values(), *(INTENSITY[name] for name in INTENSITY if name != "autocontrast")])
def test_no_strength_is_the_identity(operation: Operation) -> None:
    frames = clips()
    coarse = operation is operations.posterize  # 256 levels even then
    torch.testing.assert_close(operation(frames, strength(0, 0, 0, 0)), frames, rtol=0, atol=1 / 255 if coarse else 2e-5)


@pytest.mark.parametrize("name", [*GEOMETRIC, "brightness", "contrast", "sharpness"])
def test_the_sign_is_the_direction(name: str) -> None:
    frames = clips(1).expand(2, -1, -1, -1, -1)
    there, back = OPERATIONS[name](frames, strength(0.5, -0.5))
    assert not torch.allclose(there, frames[0], atol=0.01) and not torch.allclose(there, back, atol=0.01)


def test_translations_are_whole_shifts_with_the_border_repeated() -> None:
    frames = clips(1, width=20)
    right, down = operations.translate_x(frames, strength(5 / 9)), operations.translate_y(frames, strength(-5 / 9))
    torch.testing.assert_close(right[..., 5:], frames[..., :-5], rtol=0, atol=1e-5)
    torch.testing.assert_close(right[..., :5], frames[..., :1].expand_as(right[..., :5]), rtol=0, atol=1e-5)
    torch.testing.assert_close(down[..., :-5, :], frames[..., 5:, :], rtol=0, atol=1e-5)


@pytest.mark.parametrize("strong", [-1.0, 0.6])
def test_a_bar_is_turned_by_the_angle_and_slanted_by_the_tangent(strong: float) -> None:
    """The principal axis of a vertical bar, on an oblong frame."""
    rows, columns = torch.meshgrid(torch.arange(61.0) - 30, torch.arange(41.0) - 20, indexing="ij")
    bar = ((columns.abs() < 1.5) & (rows.abs() < 12)).float() * 2 - 1

    def tangent(film: Tensor) -> float:
        light = (film[0, 0, 0] + 1) / 2
        return float((light * rows * columns).sum() / (light * rows**2).sum())

    frames = bar.expand(1, 2, 1, 61, 41)
    turned, slanted = operations.rotate(frames, strength(strong)), operations.shear_x(frames, strength(strong))
    assert abs(tangent(turned)) == pytest.approx(abs(torch.tan(torch.tensor(strong * torch.pi / 6)).item()), rel=0.05)
    assert abs(tangent(slanted)) == pytest.approx(0.3 * abs(strong), rel=0.05)
    assert tangent(turned) * strong > 0 > tangent(slanted) * strong
    upright = operations.shear_y(frames.transpose(-1, -2), strength(strong)).transpose(-1, -2)
    torch.testing.assert_close(upright, slanted, rtol=0, atol=1e-5)


def test_light_by_hand() -> None:
    frames = torch.tensor([-1, -0.5, 0, 1]).view(1, 1, 1, 2, 2).expand(1, 2, 1, 2, 2)

    def values(operation: Operation, strong: float) -> Tensor:
        return operation(frames, strength(strong))[0, 1].flatten()

    torch.testing.assert_close(values(operations.brightness, -1), torch.tensor([-1, -0.95, -0.9, -0.8]))
    torch.testing.assert_close(values(operations.contrast, 1), -0.125 + 1.9 * (frames[0, 0].flatten() + 0.125))
    torch.testing.assert_close(values(operations.solarize, -0.75), torch.tensor([-1.0, -0.5, 0.0, -1]))
    torch.testing.assert_close(values(operations.solarize, 1), torch.tensor([-1, 0.5, 0, -1]))
    torch.testing.assert_close(values(operations.posterize, 1), torch.tensor([0, 4, 8, 15]) / 7.5 - 1)
    torch.testing.assert_close(operations.autocontrast(frames / 4 + 0.1, strength(0.5)), frames)
    constant = torch.full((1, 2, 3, 4, 4), 0.3)
    for operation in (operations.autocontrast, operations.contrast, operations.sharpness):
        torch.testing.assert_close(operation(constant, strength(0.9)), constant)


def test_sharpness_goes_away_from_the_smoothed_frame() -> None:
    point = torch.full((1, 1, 1, 5, 5), -0.5)
    point[..., 2, 2] = 0.8
    blurred, sharp = (operations.sharpness(point, strength(one))[0, 0, 0] for one in (-1.0, 1.0))
    assert float(blurred[2, 2]) == pytest.approx(-0.5 + 1.3 * (0.1 + 0.9 * 5 / 13))
    assert float(sharp[1, 1]) == pytest.approx(-0.5 - 0.9 * 1.3 / 13)


def test_every_operation_comes_up_and_clips_differ() -> None:
    frames = clips(1, 2).expand(200, -1, -1, -1, -1)
    changed = rand_augment(frames, generator(0), operations=1)
    once = 2 * (len(GEOMETRIC) + 3) + 4  # two directions each, but for identity, posterize, solarize and autocontrast
    assert len(changed.flatten(1).unique(dim=0)) == once


def test_what_cannot_be_is_refused() -> None:
    for magnitude in (-1, 11, float("nan")):
        with pytest.raises(ValueError, match="magnitude"):
            rand_augment(clips(), generator(0), magnitude=magnitude)
    with pytest.raises(ValueError, match="operations"):
        rand_augment(clips(), generator(0), operations=-1)
