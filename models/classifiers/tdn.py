"""TDN: a 2-D residual network that sees differences in time (Wang et al., CVPR 2021; there ResNet-50, segments of five frames).

Kept are both modules. The short-term one encodes the four differences between neighbours among the five frames around each, at
lower resolution, and adds them to the stem's features; here once, in the paper again after the first stage. The long-term one,
in every later stage, subtracts aligned neighbours both ways, looks at three scales, and feeds F + F * M to the residual branch.
A segment is one frame here: clips are short and whole. Frames' logits are averaged.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

NEAR = 2
"""Differences before and after each frame."""
RATIO = 16


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return DifferenceNet(channels, classes, width)


class ShortTerm(nn.Module):
    """What changes around each frame, as features to add to the frame's; exactly zero where nothing changes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Neither biases nor batch norms, unlike the paper: a still clip would not give zero.
        self.encode = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2 * NEAR * channels, width, 5, 2, 2, bias=False), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False))

    def forward(self, clips: Tensor, size: torch.Size) -> Tensor:
        """(B, C, T, H, W) -> (B T, width, *size)."""
        changes = functional.pad(clips.diff(dim=2), (0, 0, 0, 0, NEAR, NEAR))  # past the ends nothing changes
        around = changes.unfold(2, 2 * NEAR, 1)  # (B, C, T, H, W, 4)
        encoded = self.encode(around.permute(0, 2, 1, 5, 3, 4).flatten(2, 3).flatten(0, 1))
        return functional.interpolate(encoded, size)


class LongTerm(nn.Module):
    """Excites features (B T, C, H, W) by their differences from the next and the previous frame's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = max(8, width // RATIO)
        self.squeeze = nn.Sequential(nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.align = nn.Conv2d(middle, middle, 3, 1, 1, groups=middle, bias=False)
        self.fine = nn.Sequential(nn.Conv2d(middle, middle, 3, 1, 1, bias=False), nn.BatchNorm2d(middle))
        self.coarse = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(middle, middle, 3, 1, 1, bias=False),
                                    nn.BatchNorm2d(middle))
        self.weigh = nn.Sequential(nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width), nn.Sigmoid())

    def differences(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """From the next frame and from the previous, (B T, middle, H, W) each; zeros where there is none."""
        small = self.squeeze(x)
        aligned = self.align(small).unflatten(0, (-1, frames))
        small = small.unflatten(0, (-1, frames))
        following, preceding = torch.zeros_like(small), torch.zeros_like(small)
        following[:, :-1] = small[:, :-1] - aligned[:, 1:]
        preceding[:, 1:] = small[:, 1:] - aligned[:, :-1]
        return following.flatten(0, 1), preceding.flatten(0, 1)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        both = torch.cat(self.differences(x, frames))  # one set of weights for both directions
        coarse = functional.interpolate(self.coarse(both), both.shape[2:])
        following, preceding = self.weigh(both + self.fine(both) + coarse).chunk(2)
        return x + x * (following + preceding) / 2


class Block(nn.Module):
    """A basic residual block over frames (B T, C, H, W); from the second stage on its branch is excited first."""

    def __init__(self, before: int, after: int, stride: int, excited: bool) -> None:
        super().__init__()
        self.excite = LongTerm(before) if excited else None
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        excited = x if self.excite is None else self.excite(x, frames)
        return torch.relu(self.body(excited) + self.shortcut(x))


class DifferenceNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.short = ShortTerm(channels, width)
        levels = [width, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(Block(before, after, 1 if before == after else 2, excited=number > 0)
                                    for number, (before, after) in enumerate(pairwise(levels)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(levels[-1], classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        frames = clips.shape[2]
        x = self.stem(clips.transpose(1, 2).flatten(0, 1))
        x = x + self.short(clips, x.shape[2:])
        for block in self.blocks:
            x = block(x, frames)
        logits: Tensor = self.head(x).unflatten(0, (-1, frames)).mean(1)
        return logits
