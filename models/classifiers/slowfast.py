"""SlowFast: few frames with many channels beside all frames with few (Feichtenhofer et al., ICCV 2019; there 64 to 2048).

The slow pathway sees every fourth frame, the fast one all of them with a quarter of the channels; the paper has an eighth of
both, which would leave a single frame of eight. After the stem and all levels but the last, the fast pathway's maps join the
slow ones by a convolution strided in time. As in the paper the fast pathway looks along time in all its blocks, the slow one
in the later ones only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

APART = 4
"""Every which frame is the slow pathway's."""


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return SlowFast(channels, classes, width)


class SlowFast(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        slow, fast = [width * 2**level for level in range(4)], [max(2, width // 4) * 2**level for level in range(4)]
        self.slow, self.fast = nn.ModuleList([_stem(channels, slow[0], 1)]), nn.ModuleList([_stem(channels, fast[0], 5)])
        for level, (stride, looks) in enumerate(((1, 1), (2, 3), (2, 3))):
            self.slow.append(Residual(slow[level] + 2 * fast[level], slow[level + 1], stride, looks))
            self.fast.append(Residual(fast[level], fast[level + 1], stride, 3))
        self.lateral = nn.ModuleList(_lateral(one) for one in fast[:-1])
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(slow[-1] + fast[-1], classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        slow, fast = self.slow[0](clips[:, :, ::APART]), self.fast[0](clips)
        for see_slow, see_fast, lateral in zip(self.slow[1:], self.fast[1:], self.lateral, strict=True):
            slow, fast = see_slow(torch.cat([slow, lateral(fast)], 1)), see_fast(fast)
        logits: Tensor = self.head(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1))
        return logits


class Residual(nn.Module):
    """A convolution along `looks` frames, a spatial one with a stride, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int, looks: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(before, after, (looks, 1, 1), padding=(looks // 2, 0, 0), bias=False), nn.BatchNorm3d(after),
            nn.ReLU(inplace=True),
            nn.Conv3d(after, after, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False), nn.BatchNorm3d(after))
        self.shortcut = nn.Sequential(nn.Conv3d(before, after, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _stem(channels: int, after: int, looks: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels, after, (looks, 5, 5), (1, 2, 2), (looks // 2, 2, 2), bias=False),
                         nn.BatchNorm3d(after), nn.ReLU(inplace=True))


def _lateral(fast: int) -> nn.Sequential:
    """(B, F, T, H, W) -> (B, 2 F, ceil(T / APART), H, W): as many frames as `[::APART]` leaves, for every T."""
    return nn.Sequential(nn.Conv3d(fast, 2 * fast, (5, 1, 1), (APART, 1, 1), (2, 0, 0), bias=False), nn.BatchNorm3d(2 * fast),
                         nn.ReLU(inplace=True))
