"""Motion between frames: dense fields by optical flow, and the trajectories of patches along them.

Ctrl-GenAug takes its fields from an H.264 encoder, which writes them at block centres only, differently in every build; most of
its trajectories are straight as a consequence (measured by arithmetic: motions under 4 pixels round to nothing). Here a field
has a vector at every pixel, in fractions of a pixel, and depends on the frames alone.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

cv2.setNumThreads(1)
"""DIS cuts a frame into as many strips as there are threads and looks across their borders: only one gives one answer."""

THREADS = 8
"""Pairs of frames at a time."""

NONE = -1
"""In a table of trajectories: the trajectory does not reach this frame."""


def optical_flow(frames: Tensor, blur: float = 1.5) -> Tensor:
    """Forward displacement of every pixel: what lies at p in frame t lies at p + field in frame t + 1.

    Dense inverse search (Kroeger et al., ECCV 2016) of OpenCV, up to the finest scale. Speckle and quantum noise are new in
    every frame, and what moves them is chance: frames are blurred first, and the variational refinement is smoother than
    OpenCV's and leaves gradients out. On simulated fluoroscopy that halves the distance to the flow of the same clips without
    noise, and raises the correlation with it from 0.55 to 0.61 (`python benchmarks/flow.py`).

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 2, H and W >= 16. Colour is averaged.
        blur: standard deviation in pixels; 0 for none.

    Returns:
        (B, T - 1, 2, H, W) float32 in pixels, on the device of `frames`; channel 0 is x (columns), 1 is y (rows).

    Raises:
        ValueError: for fewer than two frames, or frames too small.
    """
    batch, length, _, height, width = frames.shape
    if length < 2:
        raise ValueError(f"motion needs 2 frames, but the clips have {length}")
    if min(height, width) < 16:
        raise ValueError(f"optical flow needs frames of at least 16x16 pixels, but they are {height}x{width}")
    grey = ((frames.mean(2) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    smooth = [[cv2.GaussianBlur(frame, (0, 0), blur) if blur else frame for frame in clip] for clip in grey]
    pairs = [pair for clip in smooth for pair in itertools.pairwise(clip)]
    with ThreadPoolExecutor(THREADS) as pool:
        fields = list(pool.map(_flow, pairs))
    field = torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2).contiguous()
    return field.view(batch, length - 1, 2, height, width).to(frames.device)


def _flow(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> NDArray[np.float32]:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(20)
    search.setVariationalRefinementAlpha(100)
    search.setVariationalRefinementGamma(0)
    return np.asarray(search.calc(*pair, None), np.float32)  # type: ignore[call-overload]  # no initial field


def follow(frames: Tensor, field: Tensor) -> Tensor:
    """Frames pulled back along the motion that leads to them: at p the value at p + field, bilinear, the border repeated.

    Args:
        frames: (B, T, C, H, W).
        field: (B, T, 2, H, W) pixels, x then y.

    Returns:
        (B, T, C, H, W).
    """
    height, width = frames.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(size, device=frames.device, dtype=field.dtype) for size in (height, width)),
                          indexing="ij")
    places = torch.stack([2 * (x + field[:, :, 0]) / (width - 1) - 1, 2 * (y + field[:, :, 1]) / (height - 1) - 1], -1)
    pulled = functional.grid_sample(frames.flatten(0, 1), places.flatten(0, 1), padding_mode="border", align_corners=True)
    return pulled.unflatten(0, frames.shape[:2])


def trajectories(field: Tensor, patch: int, rng: torch.Generator) -> Tensor:
    """Where every patch of the clip lies in every frame, along its trajectory (Ctrl-GenAug, motion field attention, step 1).

    The field is averaged over each patch and rounded to whole patches; a patch that leaves the frame ends its trajectory. When
    several lie on one in the next frame, one of them, drawn from `rng`, goes on and the others end, so that every patch is on
    exactly one trajectory.

    Args:
        field: (B, T - 1, 2, H, W) pixels, as `optical_flow` gives it; H and W are multiples of `patch`.
        patch: side of a patch in pixels, the paper's m.
        rng: CPU generator that settles the conflicts.

    Returns:
        (B, T, N, T) int64, N = H W / patch^2 patches in row order: entry [b, t, n, s] is the place in frame s of the trajectory
        that goes through patch n of frame t, `NONE` where it does not reach. [b, t, n, t] is n itself.

    Raises:
        ValueError: if the frame is not a whole number of patches.
    """
    batch, steps, _, height, width = field.shape
    if height % patch or width % patch:
        raise ValueError(f"frames of {height}x{width} are no whole number of patches of {patch}; choose a divisor of both")
    following = links(field, patch, rng)  # (B, T - 1, N)
    count = following.shape[2]
    preceding = torch.full_like(following, NONE)
    for step in range(steps):
        clip, origin = (following[:, step] != NONE).nonzero(as_tuple=True)
        preceding[clip, step, following[clip, step, origin]] = origin
    table = torch.full((batch, steps + 1, count, steps + 1), NONE, dtype=torch.long, device=field.device)
    for frame in range(steps + 1):
        table[:, frame, :, frame] = torch.arange(count, device=field.device)
        for later in range(frame, steps):
            table[:, frame, :, later + 1] = _follow(table[:, frame, :, later], following[:, later])
        for earlier in range(frame - 1, -1, -1):
            table[:, frame, :, earlier] = _follow(table[:, frame, :, earlier + 1], preceding[:, earlier])
    return table


def alone(table: Tensor) -> Tensor:
    """A table of the same shape in which every patch is on a trajectory of its own: attention along it changes nothing."""
    frames = table.shape[1]
    diagonal = torch.eye(frames, dtype=torch.bool, device=table.device)[None, :, None]  # (1, F, 1, F)
    return table.where(diagonal, NONE)


def _follow(places: Tensor, link: Tensor) -> Tensor:
    """One step along (B, N) links from (B, N) places."""
    reached = link.gather(1, places.clamp_min(0))
    return torch.where(places == NONE, NONE, reached)


def links(field: Tensor, patch: int, rng: torch.Generator) -> Tensor:
    """Where each patch goes in the next frame, at most one patch to a place.

    Args:
        field, patch, rng: see `trajectories`.

    Returns:
        (B, T - 1, N) int64 places in row order; `NONE` if the patch leaves the frame, or another, drawn at random, takes its
        place.
    """
    batch, steps, _, height, width = field.shape
    rows, columns = height // patch, width // patch
    moved = (functional.avg_pool2d(field.flatten(0, 1), patch) / patch).round().long()  # (B (T - 1), 2, rows, columns)
    grid_y, grid_x = torch.meshgrid(*(torch.arange(size, device=field.device) for size in (rows, columns)), indexing="ij")
    x, y = grid_x + moved[:, 0], grid_y + moved[:, 1]
    inside = ((x >= 0) & (x < columns) & (y >= 0) & (y < rows)).flatten(1)
    target = (y * columns + x).flatten(1).where(inside, 0)
    # every patch draws a rank, of so many digits that two never draw the same; of those that meet, the highest goes on
    rank = torch.rand(target.shape, generator=rng, dtype=torch.float64).to(field.device)
    highest = torch.full_like(rank, -1).scatter_reduce(1, target, rank.where(inside, -1), "amax")
    wins = inside & (highest.gather(1, target) == rank)
    return target.where(wins, NONE).view(batch, steps, rows * columns)
