"""RandAugment for clips: a few operations in a row, each drawn from a list, all of one strength (Cubuk et al., NeurIPS 2020).

A clip's frames all get the same, so that motion stays motion; each clip has its own draw. Ranges at full strength are those of
the paper (AutoAugment's). No flips: anatomy is handed. Equalisation is left out: the histogram of a clip that is mostly
background says little of what is in it. Where an operation moves the frame, its border is repeated, as in `models.augment`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 10
"""The largest magnitude."""


def rand_augment(frames: Tensor, rng: torch.Generator, operations: int = 2, magnitude: float = 9) -> Tensor:
    """Every clip of a batch through `operations` random operations.

    Args:
        frames: (B, T, C, H, W) float in [-1, 1], any device.
        rng: CPU generator, all the randomness there is: which operations, and in which of two directions.
        operations: how many in a row, with replacement; N of the paper.
        magnitude: their common strength, from 0 to MOST; M of the paper.

    Returns:
        The same shape, type and range.

    Raises:
        ValueError: for a negative number of operations, or a magnitude outside [0, MOST].
    """
    if operations < 0:
        raise ValueError(f"operations: {operations}, but it is how many follow each other; 0 changes nothing")
    if not 0 <= magnitude <= MOST:
        raise ValueError(f"magnitude: {magnitude} is not in [0, {MOST}]")
    shape = (operations, len(frames))
    chosen = torch.randint(0, len(OPERATIONS), shape, generator=rng)
    strengths = (2 * torch.randint(0, 2, shape, generator=rng) - 1) * (magnitude / MOST)
    frames = frames.clone()
    for numbers, strength in zip(chosen, strengths.to(frames), strict=True):
        for number, operation in enumerate(OPERATIONS.values()):
            clips = (numbers == number).nonzero()[:, 0].to(frames.device)
            if len(clips):
                frames[clips] = operation(frames[clips], strength[clips]).clamp(-1, 1)
    return frames


def translate_x(frames: Tensor, strength: Tensor) -> Tensor:
    """Up to 0.45 of the width. This and all below: (B, T, C, H, W) in [-1, 1] and (B,) in [-1, 1] -> (B, T, C, H, W)."""
    return _move(frames, x=0.45 * strength)


def translate_y(frames: Tensor, strength: Tensor) -> Tensor:
    """Up to 0.45 of the height."""
    return _move(frames, y=0.45 * strength)


def shear_x(frames: Tensor, strength: Tensor) -> Tensor:
    """Rows slide, by up to 0.3 of their distance from the middle."""
    return _move(frames, xy=0.3 * strength)


def shear_y(frames: Tensor, strength: Tensor) -> Tensor:
    """Columns slide, by up to 0.3 of their distance from the middle."""
    return _move(frames, yx=0.3 * strength)


def rotate(frames: Tensor, strength: Tensor) -> Tensor:
    """Up to 30 degrees about the middle."""
    angle = math.radians(30) * strength
    return _move(frames, xx=angle.cos(), xy=-angle.sin(), yx=angle.sin(), yy=angle.cos())


def brightness(frames: Tensor, strength: Tensor) -> Tensor:
    """Light times 1 +- up to 0.9."""
    return _factor(strength) * (frames + 1) - 1


def contrast(frames: Tensor, strength: Tensor) -> Tensor:
    """Distances from the clip's mean times 1 +- up to 0.9."""
    mean = frames.mean((1, 2, 3, 4), keepdim=True)
    return mean + _factor(strength) * (frames - mean)


def sharpness(frames: Tensor, strength: Tensor) -> Tensor:
    """Distances from the smoothed frame times 1 +- up to 0.9; smoothed over 3 x 3 pixels, 5 parts of 13 the middle one."""
    flat = frames.flatten(1, 2)
    mean = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), "replicate"), 3, 1).view(frames.shape)
    smooth = (9 * mean + 4 * frames) / 13
    return smooth + _factor(strength) * (frames - smooth)


def posterize(frames: Tensor, strength: Tensor) -> Tensor:
    """From 256 grey levels down to 16, evenly over the range, whichever the sign."""
    steps = (2 ** (8 - 4 * strength.abs()).round() - 1).view(-1, 1, 1, 1, 1)
    return ((frames + 1) / 2 * steps).round() / steps * 2 - 1


def solarize(frames: Tensor, strength: Tensor) -> Tensor:
    """Values above a threshold are inverted, in the end all but black, whichever the sign."""
    return torch.where(frames > 1 - 2 * strength.abs().view(-1, 1, 1, 1, 1), -frames, frames)


def autocontrast(frames: Tensor, strength: Tensor) -> Tensor:
    """Every channel of a clip stretched to the whole range, at any strength; a constant one stays."""
    low, high = frames.amin((1, 3, 4), keepdim=True), frames.amax((1, 3, 4), keepdim=True)
    span = high - low
    return torch.where(span > 0, (frames - low) / span.clamp_min(torch.finfo(frames.dtype).tiny) * 2 - 1, frames)


Operation = Callable[[Tensor, Tensor], Tensor]
GEOMETRIC: dict[str, Operation] = {"translate_x": translate_x, "translate_y": translate_y, "shear_x": shear_x,
                                   "shear_y": shear_y, "rotate": rotate}
INTENSITY: dict[str, Operation] = {"brightness": brightness, "contrast": contrast, "sharpness": sharpness,
                                   "posterize": posterize, "solarize": solarize, "autocontrast": autocontrast}
OPERATIONS: dict[str, Operation] = {"identity": lambda frames, strength: frames, **GEOMETRIC, **INTENSITY}


def _factor(strength: Tensor) -> Tensor:
    return (1 + 0.9 * strength).view(-1, 1, 1, 1, 1)


def _move(frames: Tensor, xx: Tensor | float = 1.0, xy: Tensor | float = 0.0, yx: Tensor | float = 0.0,
          yy: Tensor | float = 1.0, x: Tensor | float = 0.0, y: Tensor | float = 0.0) -> Tensor:
    """The clip moved by `x` and `y`, shares of its sides, after its pixels took their values from the matrix times their place.

    Places are pixels from the middle, not [-1, 1]: a rotation of an oblong frame must stay a rotation.
    """
    batch, _, _, height, width = frames.shape
    xx, xy, yx, yy, x, y = (torch.as_tensor(value).to(frames).expand(batch) for value in (xx, xy, yx, yy, x, y))
    matrix = torch.stack([torch.stack([xx, xy], 1), torch.stack([yx, yy], 1)], 1)
    rows, columns = (torch.arange(side).to(frames) - (side - 1) / 2 for side in (height, width))
    places = torch.einsum("bij,hwj->bhwi", matrix, torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1))
    grid = places * 2 / frames.new_tensor([width, height]) - 2 * torch.stack([x, y], 1)[:, None, None]
    moved = F.grid_sample(frames.flatten(1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.view(frames.shape)
