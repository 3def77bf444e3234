"""What clips look like, in numbers a network has no part in: contrast, sharpness, how much changes and how far things move."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from models.motion import optical_flow

MEASURES: dict[str, str] = {
    "contrast": "standard deviation of a clip's pixels, which are in [-1, 1]",
    "sharpness": "mean absolute difference of neighbouring pixels",
    "frame_change": "mean absolute difference of a pixel from frame to frame",
    "motion_energy": "mean length of the motion field from frame to frame, pixels (optical flow)",
}


def appearance(frames: Tensor) -> dict[str, Tensor]:
    """Every measure of `MEASURES` of every clip.

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 2.

    Returns:
        (B,) each.
    """
    measured: dict[str, Callable[[Tensor], Tensor]] = {
        "contrast": lambda clip: clip.flatten(1).std(1, correction=0),
        "sharpness": lambda clip: (clip.diff(dim=-1).abs().flatten(1).mean(1) + clip.diff(dim=-2).abs().flatten(1).mean(1)) / 2,
        "frame_change": lambda clip: clip.diff(dim=1).abs().flatten(1).mean(1),
        "motion_energy": lambda clip: optical_flow(clip).norm(dim=2).flatten(1).mean(1),
    }
    return {name: measured[name](frames) for name in MEASURES}
