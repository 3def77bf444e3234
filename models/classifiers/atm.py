"""ATM: tokens choose where they look (Wei et al., AAAI 2023; there images, and four levels).

Every token predicts, for each group of its channels and each axis, how far along that axis it takes their values from; what it
took and what it has are fused by weights the clip decides. Time is a third axis here. Offsets end REACH tokens away, in the
paper nowhere. Values between tokens are interpolated, so that offsets learn; past a border, the border's token counts.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd

import torch
from torch import Tensor, nn

GROUPS = 8
"""Of channels that look at the same place; fewer where the width is no multiple."""
REACH = 4
"""At each level: twice as many pixels from one to the next, the same frames."""
AXES = (1, 2, 3)
"""T, H and W of tokens (B, T, H, W, C)."""


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return ActiveTokenNet(channels, classes, width)


def take(x: Tensor, offsets: Tensor, axis: int) -> Tensor:
    """What (B, T, H, W, G, C/G) shows `offsets` (B, T, H, W, G) tokens farther along `axis`."""
    last = x.shape[axis] - 1
    shape = [-1 if dim == axis else 1 for dim in range(offsets.dim())]
    here = torch.arange(last + 1, dtype=torch.float32, device=x.device).view(shape)  # half precision would lose the fraction
    places = (here + offsets).clamp(0, last)
    low = places.detach().floor().long()
    near, far = (x.gather(axis, index[..., None].expand_as(x)) for index in (low, (low + 1).clamp(max=last)))
    return near + (places - low)[..., None].to(x.dtype) * (far - near)


class ActiveMixer(nn.Module):
    """Tokens (B, T, H, W, C) -> as many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.groups = gcd(GROUPS, width)
        self.look = nn.Linear(width, len(AXES) * self.groups)
        self.embed = nn.ModuleList(nn.Linear(width, width) for _ in range(1 + len(AXES)))
        self.weigh = nn.Sequential(nn.Linear(width, max(4, width // 4)), nn.GELU(),
                                   nn.Linear(max(4, width // 4), len(self.embed) * width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        offsets = (REACH * torch.tanh(self.look(x))).chunk(len(AXES), -1)
        grouped = x.unflatten(-1, (self.groups, -1))
        taken = [x, *(take(grouped, offset, axis).flatten(-2) for offset, axis in zip(offsets, AXES, strict=True))]
        parts = torch.stack([embed(part) for embed, part in zip(self.embed, taken, strict=True)], 1)  # (B, 4, T, H, W, C)
        weights = self.weigh(parts.sum(1).mean(AXES)).unflatten(-1, (len(taken), -1)).softmax(1)
        fused: Tensor = self.out(torch.einsum("bnthwc,bnc->bthwc", parts, weights))
        return fused


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(width), ActiveMixer(width))
        self.channels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        out: Tensor = x + self.channels(x)
        return out


class Patches(nn.Module):
    """Overlapping patches of every frame, half the height and width: (B, T, H, W, C) -> (B, T, H/2, W/2, C')."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        # Over the batch: with a norm over each token's few channels small sets are learned several times slower or not at all.
        self.embed = nn.Sequential(
            nn.Conv3d(before, after, (1, kernel, kernel), (1, 2, 2), (0, kernel // 2, kernel // 2), bias=False),
            nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.embed(x.movedim(-1, 1)).movedim(1, -1)
        return embedded


class ActiveTokenNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        levels = [channels, width, 2 * width, 4 * width]
        self.levels = nn.Sequential(*(nn.Sequential(Patches(before, after, 5 if number == 0 else 3), Block(after))
                                      for number, (before, after) in enumerate(pairwise(levels))))
        self.norm = nn.LayerNorm(levels[-1])
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(levels[-1], classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        logits: Tensor = self.head(self.norm(self.levels(clips.movedim(1, -1))).mean(AXES))
        return logits
