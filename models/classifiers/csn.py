"""CSN: convolutions see channels apart or space and time, never both (Tran et al., ICCV 2019; there 64 to 2048 channels).

The interaction-reduced form, ir-CSN: in every bottleneck the 3 x 3 x 3 convolution is channelwise, so only the pointwise ones
mix channels. Here the bottleneck has half the channels of its output, a quarter in the paper, and only space is strided.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    stem = [nn.Conv3d(channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(width),
            nn.ReLU(inplace=True)]
    blocks, before = list[nn.Module](), width
    for level, after in enumerate((2 * width, 4 * width, 8 * width)):
        blocks += [Bottleneck(before, after, 1 if level == 0 else 2), Bottleneck(after, after, 1)]
        before = after
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, classes))


class Bottleneck(nn.Module):
    """Pointwise, channelwise, pointwise, and a shortcut; `stride` in space."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = after // 2
        self.body = nn.Sequential(
            nn.Conv3d(before, inner, 1, bias=False), nn.BatchNorm3d(inner), nn.ReLU(inplace=True),
            nn.Conv3d(inner, inner, 3, (1, stride, stride), 1, groups=inner, bias=False), nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True), nn.Conv3d(inner, after, 1, bias=False), nn.BatchNorm3d(after))
        self.shortcut = nn.Identity() if before == after else nn.Sequential(
            nn.Conv3d(before, after, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
