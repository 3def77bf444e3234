"""TSM: a 2-D residual network that shifts a part of its channels between frames (Lin et al., ICCV 2019; there ResNet-50).

Before the first convolution of every residual block an eighth of the channels takes its values from the frame before, an eighth
from the frame after; the shortcut is not shifted ("residual shift"). Frames' logits are averaged.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

PART = 8


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return ShiftedResNet(channels, classes, width)


def shift(x: Tensor) -> Tensor:
    """(B, T, C, H, W): channels [0, C/8) one frame later, [C/8, C/4) one frame earlier, the rest in place; zeros come in."""
    part = max(1, x.shape[2] // PART)
    out = torch.zeros_like(x)
    out[:, 1:, :part] = x[:, :-1, :part]
    out[:, :-1, part : 2 * part] = x[:, 1:, part : 2 * part]
    out[:, :, 2 * part :] = x[:, :, 2 * part :]
    return out


class Block(nn.Module):
    """A basic residual block over frames (B T, C, H, W)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        moved = shift(x.unflatten(0, (-1, frames))).flatten(0, 1)
        return torch.relu(self.body(moved) + self.shortcut(x))


class ShiftedResNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        levels = [width, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(Block(before, after, 1 if before == after else 2)
                                    for before, after in pairwise(levels))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(levels[-1], classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        frames = clips.shape[2]
        x = self.stem(clips.transpose(1, 2).flatten(0, 1))
        for block in self.blocks:
            x = block(x, frames)
        logits: Tensor = self.head(x).unflatten(0, (-1, frames)).mean(1)
        return logits
