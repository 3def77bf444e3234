"""X3D: narrow bottlenecks with channelwise 3 x 3 x 3 convolutions (Feichtenhofer, CVPR 2020; X3D-S has 24 to 192 channels).

Stem factorised in space and time; each bottleneck expands by 2.25, every second one weighs its channels by squeeze and
excitation; time is never strided, so that short clips keep all their frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EXPANSION = 2.25


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    stem = [nn.Conv3d(channels, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.Conv3d(width, width, (5, 1, 1), padding=(2, 0, 0), groups=width, bias=False), nn.BatchNorm3d(width),
            nn.ReLU(inplace=True)]
    levels, blocks, before = [(width, 1), (2 * width, 2), (4 * width, 2)], list[nn.Module](), width
    for after, depth in levels:
        for number in range(depth):
            blocks.append(Bottleneck(before, after, 2 if number == 0 else 1, excite=number % 2 == 0))
            before = after
    last = int(EXPANSION * before)
    head = [nn.Conv3d(before, last, 1, bias=False), nn.BatchNorm3d(last), nn.ReLU(inplace=True), nn.AdaptiveAvgPool3d(1),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(last, classes)]
    return nn.Sequential(*stem, *blocks, *head)


class Excite(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), a sixteenth of the channels, at least 8, in the middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = max(8, width // 16)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(width, middle, 1), nn.ReLU(inplace=True),
                                   nn.Conv3d(middle, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.weigh(x)
        return out


class Bottleneck(nn.Module):
    def __init__(self, before: int, after: int, stride: int, excite: bool) -> None:
        super().__init__()
        inner = int(EXPANSION * after)
        self.body = nn.Sequential(
            nn.Conv3d(before, inner, 1, bias=False), nn.BatchNorm3d(inner), nn.ReLU(inplace=True),
            nn.Conv3d(inner, inner, 3, (1, stride, stride), 1, groups=inner, bias=False), nn.BatchNorm3d(inner),
            Excite(inner) if excite else nn.Identity(), nn.SiLU(inplace=True),
            nn.Conv3d(inner, after, 1, bias=False), nn.BatchNorm3d(after))
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv3d(before, after, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
