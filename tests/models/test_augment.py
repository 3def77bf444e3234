"""Frames and masks move together, a clip moves as one, and the rng is all the randomness there is."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from models.augment import BASIC, DEFAULT, ELASTIC, STILL, Ranges, augment
from models.clip import UNKNOWN
from models.seeding import generator

MOVES = replace(DEFAULT, gamma=0, contrast=0, brightness=0, shading=0, noise=0)
LIGHT = replace(STILL, gamma=0.3, contrast=0.3, brightness=0.1, shading=0.1, noise=0.05)


def discs(batch: int = 4, length: int = 3, height: int = 40, width: int = 56) -> Tensor:
    """(B, T, H, W) uint8: a disc of label 1 that drifts from frame to frame, with a bar of label 2 beside it."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    drift = torch.arange(length)[:, None, None]
    disc = (rows - 18 - drift) ** 2 + (columns - 24) ** 2 < 81
    masks = disc.to(torch.uint8)
    masks[:, 10:30, 40:46] = 2
    return masks.expand(batch, length, height, width).clone()


def test_zero_ranges_are_the_identity() -> None:
    masks = torch.randint(0, 3, (2, 3, 17, 23), generator=generator(0)).to(torch.uint8)
    frames = torch.rand(2, 3, 2, 17, 23, generator=generator(1)) * 2 - 1
    moved, labels = augment(frames, masks, generator(2), STILL)
    torch.testing.assert_close(moved, frames, atol=2e-5, rtol=0)
    assert torch.equal(labels, masks)


def test_masks_stay_on_what_they_label() -> None:
    """The frame is the mask: after any deformation its brightness still tells the label, but for half a pixel at edges."""
    masks = (discs() > 0).to(torch.uint8)
    moved, labels = augment((masks.float() * 2 - 1)[:, :, None], masks, generator(3), MOVES)
    assert (labels != masks).float().mean() > 0.02
    assert ((moved[:, :, 0] > 0) == (labels == 1)).float().mean() > 0.995
    inside = torch.nn.functional.avg_pool2d(labels.float(), 3, stride=1, padding=1)
    assert torch.equal(moved[:, :, 0][inside == 1] > 0.99, torch.ones(int((inside == 1).sum()), dtype=torch.bool))


def test_all_frames_of_a_clip_move_alike_and_clips_differ() -> None:
    masks = discs(batch=3)[:, :1].expand(3, 4, 40, 56).contiguous()
    frames = torch.rand(3, 1, 1, 40, 56, generator=generator(4)).expand(3, 4, 1, 40, 56) * 2 - 1
    moved, labels = augment(frames, masks, generator(5), MOVES)
    assert torch.equal(labels, labels[:, :1].expand_as(labels))
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    assert not torch.equal(labels[0], labels[1]) and not torch.equal(labels[1], labels[2])


def test_light_leaves_masks_and_keeps_range() -> None:
    masks = discs()
    masks[0, 1] = UNKNOWN
    frames = torch.rand(4, 3, 1, 40, 56, generator=generator(6)) * 2 - 1
    lit, labels = augment(frames, masks, generator(7), LIGHT)
    assert torch.equal(labels, masks)
    assert lit.shape == frames.shape and lit.min() >= -1 and lit.max() <= 1
    assert (lit - frames).abs().mean() > 0.02


def test_labels_are_never_mixed() -> None:
    """Nearest sampling only: no label between two others appears, UNKNOWN stays UNKNOWN."""
    masks = discs() * 2
    masks[:, :, :6] = UNKNOWN
    _, labels = augment(torch.zeros(4, 3, 1, 40, 56), masks, generator(8))
    assert set(labels.unique().tolist()) == {0, 2, 4, UNKNOWN}


def test_a_rotation_is_a_rotation_on_an_oblong_frame() -> None:
    """A disc in the middle stays round: only its rotation and zoom, no stretch from the frame's aspect."""
    rows, columns = torch.arange(40)[:, None] - 19.5, torch.arange(120) - 59.5
    disc = ((rows**2 + columns**2) < 144).to(torch.uint8).expand(8, 1, 40, 120).clone()
    _, labels = augment(torch.zeros(8, 1, 1, 40, 120), disc, generator(9), replace(STILL, rotation=90.0))
    assert (labels == disc).float().mean() > 0.99


def test_nothing_is_flipped() -> None:
    """The bar stays right of the disc in every one of 64 draws."""
    masks = discs(batch=64, length=1)
    _, labels = augment(torch.zeros(64, 1, 1, 40, 56), masks, generator(10))
    columns = torch.arange(56.0)
    disc, bar = ((labels[:, 0] == label).float().sum(1) for label in (1, 2))
    centre_disc, centre_bar = ((mass * columns).sum(1) / mass.sum(1).clamp_min(1) for mass in (disc, bar))
    seen = (disc.sum(1) > 20) & (bar.sum(1) > 20)
    assert seen.sum() > 48 and bool((centre_bar > centre_disc)[seen].all())


@pytest.mark.parametrize("seed", [0, 1])
def test_same_rng_same_clips(seed: int) -> None:
    frames, masks = torch.rand(2, 3, 1, 20, 24, generator=generator(11)), torch.zeros(2, 3, 20, 24, dtype=torch.uint8)
    first, again = augment(frames, masks, generator(seed)), augment(frames, masks, generator(seed))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], augment(frames, masks, generator(seed + 1))[0])


@pytest.mark.parametrize(("ranges", "names"), [
    (STILL, set()), (ELASTIC, {"elastic"}), (BASIC, {"rotation", "shift", "contrast", "brightness"})])
def test_the_narrower_arms_do_what_they_are_named_after(ranges: Ranges, names: set[str]) -> None:
    kept = asdict(ranges)
    assert kept.pop("elastic_points") == DEFAULT.elastic_points
    assert {name for name, extent in kept.items() if extent} == names
    assert all(kept[name] == getattr(DEFAULT, name) for name in names)
