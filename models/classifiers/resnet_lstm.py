"""ResNet-LSTM: a residual network sees every frame, an LSTM remembers, its last state decides (SurV-Gen's event recogniser).

He et al. (CVPR 2016) and Hochreiter & Schmidhuber (1997). The paper's has an ImageNet-pretrained ResNet; this one is small and
trained from scratch: three levels of one basic block each.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return ResNetLstm(channels, classes, width)


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, frames halved."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(h)) + self.norms[2](self.shortcut(x)))


class ResNetLstm(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width]
        blocks = [_Block(before, after) for before, after in itertools.pairwise(widths)]
        stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.see = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *blocks)
        self.remember = nn.LSTM(widths[-1], widths[-1], batch_first=True)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        batch, _, frames = clips.shape[:3]
        seen: Tensor = self.see(clips.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        _, (last, _) = self.remember(seen.view(batch, frames, -1))
        logits: Tensor = self.head(last[-1])
        return logits
