"""R(2+1)D: every 3-D convolution as a spatial and a temporal one (Tran et al., CVPR 2018; there 64 to 512 channels).

Residual blocks of two such pairs; the middle channels of a pair are chosen so that it has as many weights as the 3-D
convolution it stands for (section 3.5 of the paper).
"""

from __future__ import annotations

from torch import Tensor, nn


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    levels = [width, 2 * width, 4 * width]
    stem = [nn.Conv3d(channels, width, (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False), nn.BatchNorm3d(width),
            nn.ReLU(inplace=True), nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(width),
            nn.ReLU(inplace=True)]
    blocks = [Residual(before, after, 1 if before == after else 2)
              for before, after in zip([width, *levels[:-1]], levels, strict=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(levels[-1], classes))


class Residual(nn.Module):
    """Two factorised convolutions and a shortcut; `stride` in time and space."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_pair(before, after, stride), nn.BatchNorm3d(after), nn.ReLU(inplace=True),
                                  *_pair(after, after, 1), nn.BatchNorm3d(after))
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after))
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activate(self.body(x) + self.shortcut(x))
        return out


def _pair(before: int, after: int, stride: int) -> list[nn.Module]:
    middle = 27 * before * after // (9 * before + 3 * after)
    return [nn.Conv3d(before, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False), nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True), nn.Conv3d(middle, after, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)]
