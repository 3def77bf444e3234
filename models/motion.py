"""Motion between frames: dense fields by block matching, and the trajectories of patches along them.

Ctrl-GenAug takes its fields from an H.264 encoder, which writes them at block centres only, differently in every build; most of
its trajectories are straight as a consequence (measured by arithmetic: motions under 4 pixels round to nothing). Here a field
has a vector at every pixel and depends on the frames alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

NONE = -1
"""In a table of trajectories: the trajectory does not reach this frame."""


def block_matching(frames: Tensor, search: int = 4, block: int = 7, inertia: float = 0.02) -> Tensor:
    """Forward displacement of every pixel, by whole pixels: what lies at p in frame t lies at p + field in frame t + 1.

    For each displacement the absolute difference of the shifted frames is averaged over a block around every pixel; the least
    one wins. One pass over the whole clip per displacement, nothing per pixel.

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 2.
        search: largest displacement along each axis, pixels.
        block: side of the block, odd.
        inertia: added to the mean absolute difference per pixel of displacement, so that flat regions stay where they are.

    Returns:
        (B, T - 1, 2, H, W) float32 in pixels; channel 0 is x (columns), 1 is y (rows).

    Raises:
        ValueError: for fewer than two frames or an even block.
    """
    if frames.shape[1] < 2:
        raise ValueError(f"motion needs 2 frames, but the clips have {frames.shape[1]}")
    if block % 2 == 0:
        raise ValueError(f"block is {block}; it needs a middle, so take an odd one")
    batch, length, _, height, width = frames.shape
    now, after = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    padded = functional.pad(after, (search,) * 4, mode="replicate")
    best = torch.full((len(now), height, width), torch.inf, device=frames.device)
    field = torch.zeros(len(now), 2, height, width, device=frames.device)
    for dy, dx in _displacements(search):
        moved = padded[..., search + dy : search + dy + height, search + dx : search + dx + width]
        difference = (moved - now).abs().mean(1, keepdim=True)
        cost = functional.avg_pool2d(difference, block, 1, block // 2, count_include_pad=False)[:, 0]
        cost = cost + inertia * (dx * dx + dy * dy) ** 0.5
        better = cost < best
        best = torch.where(better, cost, best)
        for channel, shift in enumerate((dx, dy)):
            field[:, channel].masked_fill_(better, shift)
    return field.view(batch, length - 1, 2, height, width)


def _displacements(search: int) -> Iterator[tuple[int, int]]:
    """Nearest first: of equal costs the smallest displacement wins."""
    reach = range(-search, search + 1)
    yield from sorted(((dy, dx) for dy in reach for dx in reach), key=lambda shift: (shift[0] ** 2 + shift[1] ** 2, shift))


def trajectories(field: Tensor, patch: int, rng: torch.Generator) -> Tensor:
    """Where every patch of the clip lies in every frame, along its trajectory (Ctrl-GenAug, motion field attention, step 1).

    The field is averaged over each patch and rounded to whole patches; a patch that leaves the frame ends its trajectory. When
    several lie on one in the next frame, one of them, drawn from `rng`, goes on and the others end, so that every patch is on
    exactly one trajectory.

    Args:
        field: (B, T - 1, 2, H, W) pixels, as `block_matching` gives it; H and W are multiples of `patch`.
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
    # every patch draws a rank; of those that meet, the highest goes on
    rank = torch.rand(target.shape, generator=rng).argsort(1).to(field.device) + 1
    highest = torch.zeros_like(rank).scatter_reduce(1, target, rank.where(inside, 0), "amax")
    wins = inside & (highest.gather(1, target) == rank)
    return target.where(wins, NONE).view(batch, steps, rows * columns)
