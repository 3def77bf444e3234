"""Which frame from which: the paper's lists and the properties every order has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.diffusion.frame_order import bisection, chronological


def flat(frames: int) -> list[int]:
    return [step.frame for level in bisection(frames) for step in level]


def test_the_papers_orders() -> None:
    assert flat(16) == [0, 15, 7, 3, 11, 1, 5, 9, 13, 2, 4, 6, 8, 10, 12, 14]
    assert flat(8) == [0, 7, 3, 1, 5, 2, 4, 6]
    assert flat(1) == [0]
    assert flat(2) == [0, 1]
    assert [len(level) for level in bisection(16)] == [1, 1, 1, 2, 4, 7]


@given(st.integers(1, 200))
def test_every_frame_once_and_only_from_finished_neighbours(frames: int) -> None:
    done: set[int] = set()
    for level in bisection(frames):
        for step in level:
            assert set(step.given) <= done  # never from a frame of its own level
            if len(step.given) == 2:
                left, right = step.given
                assert left < step.frame < right
                assert not done & set(range(left + 1, right))  # its brackets are the nearest finished frames
        done |= {step.frame for step in level}
    assert done == set(range(frames))
    assert sorted(flat(frames)) == list(range(frames))


@given(st.integers(1, 50))
def test_chronological(frames: int) -> None:
    levels = chronological(frames)
    assert [step.frame for level in levels for step in level] == list(range(frames))
    assert all(level[0].given == ((level[0].frame - 1,) if level[0].frame else ()) for level in levels)


@pytest.mark.parametrize("order", [bisection, chronological])
def test_no_frames_is_an_error(order: object) -> None:
    with pytest.raises(ValueError, match="frames is 0"):
        order(0)  # type: ignore[operator]
