"""Fields of known motions, and trajectories against a transcription that walks patch by patch."""

from __future__ import annotations

import cv2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from models.motion import NONE, follow, optical_flow, trajectories
from models.seeding import generator


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth speckle, ten times finer than the pixels it is seen in."""
    fine = torch.rand(10 * height, 10 * width, generator=generator(seed)).numpy()
    seen = torch.from_numpy(cv2.GaussianBlur(fine, (0, 0), 15))
    return 0.4 * (seen - seen.mean()) / seen.std()


def shifted(wide: Tensor, dx: int, dy: int, frames: int = 3, side: int = 32) -> Tensor:
    """A clip whose picture moves by (dx, dy) tenths of a pixel a frame, (1, T, 1, side, side)."""
    clip = [wide[100 - t * dy : 100 - t * dy + 10 * side, 100 - t * dx : 100 - t * dx + 10 * side] for t in range(frames)]
    return functional.avg_pool2d(torch.stack(clip)[:, None], 10)[None]


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (20, 0), (0, -30), (-10, 20), (3, 0), (5, -2), (13, -9)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(dx: int, dy: int, noise: float) -> None:
    clip = shifted(texture(60, 60), dx, dy)
    clip = clip + noise * torch.randn(clip.shape, generator=generator(1))
    inner = optical_flow(clip)[..., 6:-6, 6:-6]
    error = (inner - torch.tensor([dx / 10, dy / 10]).view(2, 1, 1)).norm(dim=2)
    assert error.mean() < (0.2 if noise else 0.1)


def test_two_halves_may_move_apart() -> None:
    left, right = (shifted(texture(60, 60, seed), dx, 0, 2) for seed, dx in ((1, -10), (2, 10)))
    field = optical_flow(torch.cat([left[..., :16], right[..., 16:]], -1))[0, 0]
    assert (field[0, 6:-6, 4:10].mean() + 1).abs() < 0.2 and (field[0, 6:-6, 22:28].mean() - 1).abs() < 0.2
    assert field[1, 6:-6].abs().mean() < 0.2


def test_a_pair_s_field_is_the_same_in_every_batch() -> None:
    clips = torch.cat([shifted(texture(60, 60, seed), 7, 3) for seed in range(4)])
    whole = optical_flow(clips)
    for row in range(4):
        assert torch.equal(whole[row], optical_flow(clips[row : row + 1])[0])


def test_flat_frames_do_not_move() -> None:
    assert not optical_flow(torch.zeros(1, 3, 1, 16, 16)).any()


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 frames"):
        optical_flow(torch.zeros(1, 1, 1, 8, 8))
    with pytest.raises(ValueError, match="at least 16x16"):
        optical_flow(torch.zeros(1, 2, 1, 8, 8))
    with pytest.raises(ValueError, match="whole number of patches"):
        trajectories(torch.zeros(1, 1, 2, 9, 8), 4, generator(0))


def test_without_motion_every_patch_stays() -> None:
    table = trajectories(torch.zeros(2, 3, 2, 8, 12), 4, generator(0))
    assert table.shape == (2, 4, 6, 4)
    assert (table == torch.arange(6)[None, None, :, None]).all()


def test_a_patch_that_leaves_ends_its_trajectory() -> None:
    """One row of three patches, moving one patch to the right: the last one leaves, nothing comes in on the left."""
    field = torch.zeros(1, 2, 2, 4, 12)
    field[:, :, 0] = 4
    table = trajectories(field, 4, generator(0))[0]
    assert table[0].tolist() == [[0, 1, 2], [1, 2, NONE], [2, NONE, NONE]]
    assert table[2].tolist() == [[NONE, NONE, 0], [NONE, 0, 1], [0, 1, 2]]


def test_of_patches_that_meet_one_goes_on_and_the_seed_says_which() -> None:
    """Left moves right, right moves left, onto the middle one, which stays: three meet, two trajectories end."""
    field = torch.zeros(1, 1, 2, 4, 12)
    field[0, 0, 0, :, :4], field[0, 0, 0, :, 8:] = 4, -4
    winners = set()
    for seed in range(40):
        table = trajectories(field, 4, generator(seed))[0]
        assert (table == trajectories(field, 4, generator(seed))[0]).all()
        went = (table[0, :, 1] == 1).nonzero().flatten().tolist()
        assert len(went) == 1 and table[1, 1, 0] == went[0]
        winners.update(went)
    assert winners == {0, 1, 2}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(2, 5))
def test_trajectories_are_a_partition(seed: int, frames: int) -> None:
    """All patches of one trajectory tell the same story, and no two trajectories share a patch."""
    field = torch.randint(-6, 7, (1, frames - 1, 2, 8, 12), generator=generator(seed)).float()
    table = trajectories(field, 2, generator(seed))[0]
    stories: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for frame in range(frames):
        for place in range(24):
            story = tuple(table[frame, place].tolist())
            assert story[frame] == place
            stories.setdefault(story, set()).add((frame, place))
    for story, members in stories.items():
        assert members == {(frame, place) for frame, place in enumerate(story) if place != NONE}


def test_following_a_whole_shift_gives_the_frame_before_back() -> None:
    later = torch.rand(2, 3, 2, 8, 10, generator=generator(3))
    field = torch.zeros(2, 3, 2, 8, 10)
    field[:, :, 0], field[:, :, 1] = 2, -1
    found = follow(later, field)
    torch.testing.assert_close(found[..., 1:, :-2], later[..., :-1, 2:])
    torch.testing.assert_close(found[..., 1:, -1], later[..., :-1, -1])  # the border goes on
