"""Geometric and intensity augmentation of labelled clips: the arm every synthetic set has to beat.

One transform a clip, the same for all its frames, so that motion stays motion. No flips: anatomy is handed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Ranges:
    """How far each transform goes; draws are uniform within +- the range unless said otherwise. All zero: the identity.

    Attributes:
        rotation: degrees.
        zoom: logarithm of the scale, drawn for each axis around a common one (a quarter of the range is theirs).
        shear: tangent of the angle.
        shift: share of the frame's side.
        elastic: standard deviation of the smooth displacement, share of the shorter side.
        elastic_points: control points of the displacement along each side.
        gamma: logarithm of the exponent on intensities in [0, 1].
        contrast: logarithm of the factor about the clip's mean.
        brightness: added, as a share of the whole intensity range.
        shading: standard deviation of the logarithm of a smooth multiplicative field (coil or beam inhomogeneity).
        noise: largest standard deviation of added white noise, share of the intensity range; drawn from 0 up.
    """

    rotation: float = 20.0
    zoom: float = 0.2
    shear: float = 0.1
    shift: float = 0.08
    elastic: float = 0.025
    elastic_points: int = 5
    gamma: float = 0.2
    contrast: float = 0.15
    brightness: float = 0.05
    shading: float = 0.06
    noise: float = 0.02


DEFAULT = Ranges()
STILL = Ranges(rotation=0, zoom=0, shear=0, shift=0, elastic=0, gamma=0, contrast=0, brightness=0, shading=0, noise=0)
"""The identity, to say what one thing alone brings."""
ELASTIC = replace(STILL, elastic=DEFAULT.elastic)
"""Smooth deformation alone (Simard et al., ICDAR 2003), as strong as in the default."""
BASIC = replace(STILL, rotation=DEFAULT.rotation, shift=DEFAULT.shift, contrast=DEFAULT.contrast, brightness=DEFAULT.brightness)
"""What everyone does: rotation, shift, contrast and brightness, as strong as in the default."""


def augment(frames: Tensor, masks: Tensor, rng: torch.Generator, ranges: Ranges = DEFAULT) -> tuple[Tensor, Tensor]:
    """Deform and re-light every clip of a batch.

    Args:
        frames: (B, T, C, H, W) float in [-1, 1], any device; sampled bilinearly, the border repeated.
        masks: (B, T, H, W) uint8, same device; sampled at the nearest pixel at the same places, so labels and UNKNOWN stay.
        rng: CPU generator, all the randomness there is.

    Returns:
        The same shapes, types and ranges.
    """
    batch, length, channels, height, width = frames.shape
    grid = _grid(batch, height, width, rng, ranges).to(frames.device)
    moved = F.grid_sample(frames.flatten(1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False)
    labels = F.grid_sample(masks.to(grid.dtype), grid, mode="nearest", padding_mode="border", align_corners=False)
    lit = _relight(moved.view(batch, length, channels, height, width), rng, ranges)
    return lit, labels.round().to(torch.uint8)


def _grid(batch: int, height: int, width: int, rng: torch.Generator, ranges: Ranges) -> Tensor:
    """(B, H, W, 2) sampling positions in `grid_sample`'s units: where each output pixel takes its value from."""
    angle = math.radians(ranges.rotation) * _uniform(rng, batch)
    scale = torch.exp(ranges.zoom * (0.75 * _uniform(rng, batch, 1) + 0.25 * _uniform(rng, batch, 2)))
    shear = ranges.shear * _uniform(rng, batch)
    shift = ranges.shift * _uniform(rng, batch, 2) * torch.tensor([width, height])
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    slant = torch.eye(2).repeat(batch, 1, 1)
    slant[:, 0, 1] = shear
    matrix = turn @ slant @ torch.diag_embed(1 / scale)
    # Pixels from the centre, not [-1, 1]: a rotation of an oblong frame must stay a rotation.
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    centred = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    places = torch.einsum("bij,hwj->bhwi", matrix, centred) + shift[:, None, None]
    places = places + ranges.elastic * min(height, width) * _smooth(batch, 2, height, width, rng, ranges).permute(0, 2, 3, 1)
    return places * 2 / torch.tensor([width, height])


def _relight(frames: Tensor, rng: torch.Generator, ranges: Ranges) -> Tensor:
    """Shading, gamma, contrast, brightness and noise, one draw of each per clip; clipped to [-1, 1] again."""
    batch, _, _, height, width = frames.shape

    def draw(extent: float) -> Tensor:
        return extent * _uniform(rng, batch, 1, 1, 1, 1).to(frames.device)

    field = torch.exp(ranges.shading * _smooth(batch, 1, height, width, rng, ranges)).to(frames.device)
    light = ((frames + 1) / 2 * field[:, None]).clamp(0, 1) ** draw(ranges.gamma).exp()
    mean = light.mean((1, 2, 3, 4), keepdim=True)
    light = (light - mean) * draw(ranges.contrast).exp() + mean + draw(ranges.brightness)
    level = ranges.noise * torch.rand(batch, 1, 1, 1, 1, generator=rng).to(frames.device)
    light = light + level * torch.randn(frames.shape, generator=rng).to(frames.device)
    return light.clamp(0, 1) * 2 - 1


def _uniform(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng) * 2 - 1


def _smooth(batch: int, channels: int, height: int, width: int, rng: torch.Generator, ranges: Ranges) -> Tensor:
    """(B, channels, H, W) smooth random fields: normal values at a few control points, bicubic between them."""
    points = torch.randn(batch, channels, ranges.elastic_points, ranges.elastic_points, generator=rng)
    return F.interpolate(points, size=(height, width), mode="bicubic", align_corners=True)
