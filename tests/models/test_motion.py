"""Fields of known motions, and trajectories against a transcription that walks patch by patch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.motion import NONE, block_matching, trajectories
from models.seeding import generator


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(height, width, generator=generator(seed)) * 2 - 1


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, -3), (-1, 2), (4, 4)])
def test_a_shift_is_found_at_every_pixel(dx: int, dy: int) -> None:
    wide = texture(60, 60)
    frames = torch.stack([wide[10 - t * dy : 42 - t * dy, 10 - t * dx : 42 - t * dx] for t in range(3)])[None, :, None]
    field = block_matching(frames)
    inner = field[..., 8:-8, 8:-8]
    assert (inner[:, :, 0] == dx).all() and (inner[:, :, 1] == dy).all()


def test_two_halves_may_move_apart() -> None:
    left, right = texture(32, 40, 1), texture(32, 40, 2)
    frames = torch.stack([torch.cat([left[:, 10 + t : 26 + t], right[:, 10 - t : 26 - t]], 1) for t in range(2)])[None, :, None]
    field = block_matching(frames)[0, 0]
    assert (field[0, 6:-6, 5:10] == -1).all() and (field[0, 6:-6, 22:27] == 1).all() and (field[1, 6:-6, 5:10] == 0).all()


def test_flat_frames_do_not_move() -> None:
    assert not block_matching(torch.zeros(1, 3, 1, 16, 16)).any()


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 frames"):
        block_matching(torch.zeros(1, 1, 1, 8, 8))
    with pytest.raises(ValueError, match="odd"):
        block_matching(torch.zeros(1, 2, 1, 8, 8), block=4)
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
