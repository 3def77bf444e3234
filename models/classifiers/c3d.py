"""C3D: 3 x 3 x 3 convolutions throughout (Tran et al., ICCV 2015; there 64 to 512 channels and two layers of 4096).

The first pooling spares time, as in the paper. A global average takes the place of the large fully connected layers, which no
small data set can fill.
"""

from __future__ import annotations

from torch import nn


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = channels
    for level, (after, convolutions) in enumerate(((width, 1), (2 * width, 1), (4 * width, 2), (8 * width, 2))):
        for _ in range(convolutions):
            layers += [nn.Conv3d(before, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True)]
            before = after
        layers.append(nn.MaxPool3d((1 if level == 0 else 2, 2, 2), ceil_mode=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, classes))
