"""What clips look like, in numbers of pixels: contrast, sharpness, how much changes, how far things move, and how smoothly.

None of them is better the higher or the lower it is: noise is sharp, and of all clips the one that stands still is the
smoothest and the most alike from frame to frame. What real clips have is what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.motion import follow, optical_flow

MEASURES: dict[str, str] = {
    "contrast": "standard deviation of a clip's pixels, which are in [-1, 1]",
    "sharpness": "mean absolute difference of neighbouring pixels",
    "frame_change": "mean absolute difference of a pixel from frame to frame",
    "warping_error": "the same along the motion field: what no motion explains, flicker and noise (Lai et al., ECCV 2018)",
    "motion_energy": "mean length of the motion field from frame to frame, pixels (optical flow)",
    "dynamic_smoothness": "how near every second frame is to the mean of the two beside it, (255 - mean absolute error) / 255, "
                          "percent (VBench's motion smoothness with linear interpolation, not AMT's); a clip that stands still "
                          "scores best",
    "dynamic_smoothness_flow": "the same, the two beside it being moved half-way along the motion between them (optical flow)",
    "vae_seq": "mean cosine of consecutive frames' latents, percent (VAE of real training frames); higher is more static, so "
               "not monotone in quality",
}

SPANS: dict[str, tuple[float, float | None]] = {
    "contrast": (0, 1), "sharpness": (0, 2), "frame_change": (0, 2), "warping_error": (0, 2), "motion_energy": (0, None),
    "dynamic_smoothness": (0, 100), "dynamic_smoothness_flow": (0, 100), "vae_seq": (-100, 100),
}
"""Lowest and highest value there is; None: no end."""

Interpolator = Callable[[Tensor, Tensor], Tensor]
"""Frames (B, K, C, H, W) and those two places later -> the frames between, of the same shape."""


def appearance(frames: Tensor, field: Tensor | None = None) -> dict[str, Tensor]:
    """The first five of `MEASURES` of every clip.

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


def linear(before: Tensor, after: Tensor) -> Tensor:
    """The mean of both: right for what brightens or fades, wrong for what moves. An `Interpolator`."""
    return (before + after) / 2


def along_motion(before: Tensor, after: Tensor) -> Tensor:
    """The mean of both, each moved half-way along the motion from one to the other. An `Interpolator`."""
    pairs = torch.stack([before, after], 2).flatten(0, 1)  # (B K, 2, C, H, W)
    half = optical_flow(pairs).unflatten(0, before.shape[:2])[:, :, 0] / 2
    return linear(follow(before, -half), follow(after, half))


def dynamic_smoothness(frames: Tensor, interpolate: Interpolator = linear) -> Tensor:
    """How near every second frame is to what is interpolated from its two neighbours: (B,) percent.

    Ctrl-GenAug's, after VBench's motion smoothness (Huang et al., CVPR 2024), whose interpolator is the network AMT. A clip
    that stands still has 100, so a high number is no merit by itself.

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 3; of an even T the last frame has one neighbour and is left out.

    Raises:
        ValueError: for fewer than three frames.
    """
    if frames.shape[1] < 3:
        raise ValueError(f"smoothness needs 3 frames, but the clips have {frames.shape[1]}")
    found = interpolate(frames[:, :-2:2], frames[:, 2::2])
    return 100 * (1 - (found - frames[:, 1:-1:2]).abs().flatten(1).mean(1) / 2)
