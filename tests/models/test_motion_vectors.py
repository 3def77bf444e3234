"""A real codec's vectors: they point where things went, and a still clip has none."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.motion import optical_flow
from models.motion_vectors import codec_vectors


def moving(down: int, right: int, frames: int = 5, side: int = 64) -> torch.Tensor:
    """A texture that moves by whole pixels."""
    large = gaussian_filter(torch.randn(160, 160, generator=torch.Generator().manual_seed(0)).numpy(), 2)
    large = torch.from_numpy(large / abs(large).max()).float()
    start = 50
    steps = [(start - down * step, start - right * step) for step in range(frames)]
    return torch.stack([large[y : y + side, x : x + side] for y, x in steps])[None, :, None]


@pytest.mark.parametrize(("down", "right"), [(0, 3), (2, 0), (-2, 4)])
def test_vectors_point_where_the_texture_went(down: int, right: int) -> None:
    clip = moving(down, right)
    field = codec_vectors(clip)
    assert field.shape == (1, 4, 2, 64, 64)
    inner = field[..., 16:48, 16:48]
    assert inner[:, :, 0].median() == right and inner[:, :, 1].median() == down
    truth = optical_flow(clip)[..., 16:48, 16:48]
    assert ((inner - truth).abs().amax(2) <= 1).float().mean() > 0.8


def test_a_still_clip_has_none_and_clips_are_apart() -> None:
    still, moved = moving(0, 0), moving(0, 3)
    both = codec_vectors(torch.cat([still, moved]))
    assert not both[0].any()
    assert torch.equal(both[1:], codec_vectors(moved))


def test_odd_sizes_and_single_frames() -> None:
    assert codec_vectors(moving(1, 1, side=50)).shape == (1, 4, 2, 50, 50)
    with pytest.raises(ValueError, match="needs 2 frames"):
        codec_vectors(moving(0, 0, frames=1))
