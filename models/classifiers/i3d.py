"""I3D: an Inception network with every kernel inflated to three dimensions (Carreira & Zisserman, CVPR 2017; there 64 to 1024).

Modules of four branches, their shares of the channels those of the first one in the paper; both middle branches end in
3 x 3 x 3, as there. The stem halves space but not time, so that short clips keep all their frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    stem = [_unit(channels, width, 7, (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), _unit(width, width, 1),
            _unit(width, 3 * width, 3), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))]
    modules = [Inception(3 * width, 4 * width), nn.MaxPool3d(3, 2, 1), Inception(4 * width, 8 * width)]
    head = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * width, classes)]
    return nn.Sequential(*stem, *modules, *head)


class Inception(nn.Module):
    """Four views of the same input, beside each other: a point, a cube, a cube through fewer channels, the largest nearby."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        quarter, eighth = after // 4, after // 8
        self.branches = nn.ModuleList([
            _unit(before, quarter, 1),
            nn.Sequential(_unit(before, 3 * eighth, 1), _unit(3 * eighth, after - quarter - 2 * eighth, 3)),
            nn.Sequential(_unit(before, max(1, eighth // 2), 1), _unit(max(1, eighth // 2), eighth, 3)),
            nn.Sequential(nn.MaxPool3d(3, 1, 1), _unit(before, eighth, 1))])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _unit(before: int, after: int, kernel: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm3d(after),
                         nn.ReLU(inplace=True))
