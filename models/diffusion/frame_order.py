"""In which order the frames of a clip are generated, and from which others."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """Generate `frame` from the frames in `given`: none (leading), one (concluding), or two (intermediate)."""

    frame: int
    given: tuple[int, ...]


def bisection(frames: int) -> list[list[Step]]:
    """Leading, concluding, then breadth-first bisection; steps of one level do not depend on each other (SF-VD Fig. 2c).

    m = floor((l + r) / 2) of each gap; the paper does not say which way odd gaps round.

    Raises:
        ValueError: for fewer than one frame.
    """
    levels = chronological(min(frames, 1))
    if frames > 1:
        levels.append([Step(frames - 1, (0,))])
    gaps = [(0, frames - 1)]
    while gaps := [(left, right) for left, right in gaps if right - left > 1]:
        levels.append([Step((left + right) // 2, (left, right)) for left, right in gaps])
        gaps = [gap for left, right in gaps for gap in ((left, (left + right) // 2), ((left + right) // 2, right))]
    return levels


def chronological(frames: int) -> list[list[Step]]:
    """Every frame from the one before it: the paper's ablation without frame consistency."""
    if frames < 1:
        raise ValueError(f"frames is {frames}; a clip has at least one")
    return [[Step(0, ())], *([Step(frame, (frame - 1,))] for frame in range(1, frames))]
