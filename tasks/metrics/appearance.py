"""What clips look like, in numbers a network has no part in: contrast, sharpness, how much changes and how far things move."""

from __future__ import annotations

from torch import Tensor

from models.motion import follow, optical_flow

MEASURES: dict[str, str] = {
    "contrast": "standard deviation of a clip's pixels, which are in [-1, 1]",
    "sharpness": "mean absolute difference of neighbouring pixels",
    "frame_change": "mean absolute difference of a pixel from frame to frame",
    "warping_error": "the same along the motion field: what no motion explains, flicker and noise (Lai et al., ECCV 2018)",
    "motion_energy": "mean length of the motion field from frame to frame, pixels (optical flow)",
}


def appearance(frames: Tensor, field: Tensor | None = None) -> dict[str, Tensor]:
    """Every measure of `MEASURES` of every clip.

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 2.
        field: their motion, where it is known already, as `optical_flow` gives it.

    Returns:
        (B,) each.
    """
    field = optical_flow(frames) if field is None else field
    return {
        "contrast": frames.flatten(1).std(1, correction=0),
        "sharpness": (frames.diff(dim=-1).abs().flatten(1).mean(1) + frames.diff(dim=-2).abs().flatten(1).mean(1)) / 2,
        "frame_change": frames.diff(dim=1).abs().flatten(1).mean(1),
        "warping_error": (follow(frames[:, 1:], field) - frames[:, :-1]).abs().flatten(1).mean(1),
        "motion_energy": field.norm(dim=2).flatten(1).mean(1),
    }
