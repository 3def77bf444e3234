"""How like other clips a clip is: DS, its highest similarity to another synthetic clip, and OS, to any training clip.

Both are Pan et al.'s (2021), as SF-VD reports them; the form of their similarity is not printed. Here it is the structural
similarity of frames (Wang et al. 2004; Gaussian window of 11 pixels, standard deviation 1.5, pixels in 0..1), averaged over
frames and colours: frame t is compared with frame t.

A pair needs one blur, that of the product of its frames; all else of SSIM is known of each clip alone. The blur is two matrix
products, which is many times faster than a convolution: 80 times 200 clips of 8 frames of 64 x 64 pixels took 7 to 12 s on one
core. Clips are read in blocks, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from models.clip import ClipSource

LARGEST = 64
"""Pixels along a side: larger frames are averaged down to so many first."""
REACH, SIGMA = 5, 1.5
"""Of the window, in pixels."""
STEADY = (0.01**2, 0.03**2)
"""SSIM's two constants, for pixels in 0..1."""
BLOCK, TOGETHER = 32, 2**16
"""Clips in memory at a time; pixels of pairs at a time, few enough for a processor's cache."""


@dataclass(frozen=True)
class Windows:
    """What SSIM needs of B clips, whatever they are compared with. P is frames times colours; h, w are where windows fit.

    Attributes:
        pixels: (B, P, H, W) in 0..1, float64: where a picture is flat, float32 has no digits left for its covariance.
        mean, power, spread: (B, P, h, w) mean of pixels in the window; its square, and their variance, each with half of SSIM's
            constant.
    """

    pixels: Tensor
    mean: Tensor
    power: Tensor
    spread: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def similarity_name(height: int, width: int) -> str:
    """What frames of this size are compared by, in words."""
    seen = f"{min(height, LARGEST)} x {min(width, LARGEST)} pixels"
    return f"SSIM of frames of {seen}" if max(height, width) <= LARGEST else f"SSIM of frames averaged down to {seen}"


def windows(frames: Tensor) -> Windows:
    """Of (B, T, C, H, W) in [-1, 1].

    Raises:
        ValueError: for frames smaller than the window.
    """
    height, width = frames.shape[-2:]
    if min(height, width) < 2 * REACH + 1:
        raise ValueError(f"SSIM's window is {2 * REACH + 1} pixels wide, but frames are {height}x{width}; make them larger")
    size = (min(height, LARGEST), min(width, LARGEST))
    pixels = functional.adaptive_avg_pool2d(((frames.double() + 1) / 2).flatten(1, 2), size)
    mean = _blur(pixels)
    power = mean.square()
    return Windows(pixels, mean, power + STEADY[0] / 2, _blur(pixels.square()) - power + STEADY[1] / 2)


def ssim_table(first: Windows, second: Windows) -> Tensor:
    """(A, B) structural similarity of all pairs of clips, float64 in -1..1, 1 for equal ones."""
    found = torch.empty(len(first), len(second), dtype=torch.float64)
    together = max(1, TOGETHER // first.pixels[0].numel())
    for row in range(len(first)):
        for start in range(0, len(second), together):
            part = slice(start, start + together)
            means = first.mean[row] * second.mean[part]
            alike = _blur(first.pixels[row] * second.pixels[part]).sub_(means).mul_(2).add_(STEADY[1])  # twice the covariance
            alike.mul_(means.mul_(2).add_(STEADY[0]))
            alike.div_((first.power[row] + second.power[part]).mul_(first.spread[row] + second.spread[part]))
            found[row, part] = alike.mean((1, 2, 3))
    return found


def likest(made: ClipSource, known: ClipSource) -> Tensor:
    """(N,) highest similarity of every clip of `made` to any of `known`: OS, where these are the training clips.

    Raises:
        ValueError: if there is no known clip.
    """
    if not len(known):
        raise ValueError("there is no clip to be like; give at least one")
    return torch.cat([torch.stack([ssim_table(own, other).amax(1) for _, other in _blocks(known)]).amax(0)
                      for _, own in _blocks(made)])


def likest_other(made: ClipSource) -> Tensor:
    """(N,) highest similarity of every clip to another one of the same set: DS, where these are the synthetic clips.

    Raises:
        ValueError: for fewer than two clips.
    """
    if len(made) < 2:
        raise ValueError(f"{len(made)} clip has no other to be like; give at least two")
    best = torch.full((len(made),), -torch.inf, dtype=torch.float64)
    for rows, own in _blocks(made):
        for others, other in _blocks(made, rows.start):  # of every two blocks once: SSIM is symmetric
            alike = ssim_table(own, other)
            if others == rows:
                alike.fill_diagonal_(-torch.inf)
            best[rows] = torch.maximum(best[rows], alike.amax(1))
            best[others] = torch.maximum(best[others], alike.amax(0))
    return best


def _blocks(clips: ClipSource, first: int = 0) -> Iterator[tuple[slice, Windows]]:
    for start in range(first, len(clips), BLOCK):
        rows = slice(start, min(start + BLOCK, len(clips)))
        yield rows, windows(clips.read(range(rows.start, rows.stop)).frames)


def _blur(values: Tensor) -> Tensor:
    """(..., H, W) -> (..., h, w) mean in every window that lies within the frame."""
    height, width = values.shape[-2:]
    return _band(height) @ values @ _band(width).mT


@lru_cache(maxsize=8)
def _band(size: int) -> Tensor:
    """(size - 2 REACH, size): row i has the window's weights from column i on."""
    bell = torch.softmax(-torch.arange(-REACH, REACH + 1, dtype=torch.float64).square() / (2 * SIGMA**2), 0)
    band = torch.zeros(size - 2 * REACH, size, dtype=torch.float64)
    for row in range(len(band)):
        band[row, row : row + len(bell)] = bell
    return band
