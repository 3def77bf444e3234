"""Two clips become one, and so do their labels: Mixup, CutMix and VideoMix, the rivals of synthetic clips in classification.

All have one form: `(frames, targets, rng, alpha) -> (frames, targets)`, with frames (B, T, C, H, W) and targets (B, K) float, a
row the weights of the classes (one-hot before the first mixing). Clip b is mixed with clip `partner[b]`; the partners are a
random permutation, which may leave a clip with itself. A clip's own share lambda is Beta(alpha, alpha), drawn for each clip.
Where a box is cut its sides are rounded to whole pixels, and the targets get the share of pixels that is really there. `rng` is
a CPU generator and all the randomness there is; the results are new tensors on the device, and of the type, of what was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Axes = Literal["spatial", "temporal", "spatio-temporal"]
CUT = {"spatial": (False, True, True), "temporal": (True, False, False), "spatio-temporal": (True, True, True)}
"""Which of T, H and W the box of a variant cuts; along the others it is as long as the clip."""


def mixup(frames: Tensor, targets: Tensor, rng: torch.Generator, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Convex sums of two clips (Zhang et al., ICLR 2018)."""
    own, partner = _draw(frames, targets, rng, alpha)
    weight = own.to(frames).view(-1, 1, 1, 1, 1)
    return weight * frames + (1 - weight) * frames[partner.to(frames.device)], _blend(targets, partner, own)


def cutmix(frames: Tensor, targets: Tensor, rng: torch.Generator, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """A rectangle of one clip in all frames of the other (Yun et al., ICCV 2019); VideoMix's spatial variant is the same."""
    return videomix(frames, targets, rng, alpha, "spatial")


def videomix(frames: Tensor, targets: Tensor, rng: torch.Generator, alpha: float = 1.0,
             axes: Axes = "spatial") -> tuple[Tensor, Tensor]:
    """A cuboid of one clip in the other (Yun et al., "VideoMix", arXiv 2012.03457, 2020).

    The cuboid is 1 - lambda of the clip, and the same part of every side that is cut. Its centre may be anywhere: what would
    lie outside is lost, as in CutMix.

    Args:
        axes: "spatial", the default as in the paper, cuts one rectangle for all frames; "temporal" a stretch of whole
            frames; "spatio-temporal" a rectangle for a stretch of frames.

    Raises:
        ValueError: for other axes.
    """
    if axes not in CUT:
        raise ValueError(f"axes: {axes!r} is no variant of VideoMix; choose one of {', '.join(CUT)}")
    own, partner = _draw(frames, targets, rng, alpha)
    _, length, _, height, width = frames.shape
    box = _boxes((length, height, width), CUT[axes], 1 - own, rng)
    mixed = torch.where(box[:, :, None].to(frames.device), frames[partner.to(frames.device)], frames)
    return mixed, _blend(targets, partner, 1 - box.double().mean((1, 2, 3)))


def _boxes(sides: Sequence[int], cut: Sequence[bool], share: Tensor, rng: torch.Generator) -> Tensor:
    """(B, T, H, W) bool, true inside the box of each clip."""
    box = torch.ones(len(share), 1, 1, 1, dtype=torch.bool)
    for axis, (side, is_cut) in enumerate(zip(sides, cut, strict=True)):
        extent = (share ** (1 / sum(cut)) * side).round().long() if is_cut else torch.full_like(share, side).long()
        centre = torch.randint(0, side, share.shape, generator=rng) if is_cut else extent // 2
        start = (centre - extent // 2)[:, None]
        place = torch.arange(side)
        within = (place >= start) & (place < start + extent[:, None])
        box = box & within.view(-1, *(side if one == axis else 1 for one in range(3)))
    return box


def _draw(frames: Tensor, targets: Tensor, rng: torch.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Every clip's own share (B,), float64, and its partner (B,).

    Raises:
        ValueError: for alpha of 0 or less, or targets that are not a row of weights for each clip.
    """
    if not alpha > 0:
        raise ValueError(f"alpha: {alpha}, but a Beta distribution needs more than 0; to mix nothing leave mixing out")
    if targets.ndim != 2 or len(targets) != len(frames) or not targets.is_floating_point():
        raise ValueError(f"targets: {targets.dtype} {tuple(targets.shape)} for {len(frames)} clips; give (B, K) float")
    seed = int(torch.randint(2**62, (), generator=rng))  # torch's own Beta distribution takes no generator
    own = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(frames)))
    return own, torch.randperm(len(frames), generator=rng)


def _blend(targets: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    weight = own.to(targets)[:, None]
    return weight * targets + (1 - weight) * targets[partner.to(targets.device)]
