"""Features of a first frame, for networks that are given one."""

from __future__ import annotations

import itertools

from torch import nn


class FirstFrame(nn.Sequential):
    """(B, C, H, W) -> (B, width, H / 8, W / 8), rounded up. `width` is a multiple of 16."""

    def __init__(self, channels: int, width: int) -> None:
        sizes = [channels, width // 4, width // 2, width]
        super().__init__(*(part for before, after in itertools.pairwise(sizes) for part in (
            nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU())))
