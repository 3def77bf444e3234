"""Video Swin: attention inside windows of space and time that shift between blocks (Liu et al., CVPR 2022; there 96 to 768).

MONAI's Swin blocks and patch embedding. Its own stages would halve time too; here, as in the paper, 2 x 2 patches of a frame
merge. Windows are as long as the clips it is built for, up to the paper's 8 patches of 2 frames; clips of any T are taken.
"""

from __future__ import annotations

import importlib.util
import math

from torch import Tensor, nn

PATCH = (2, 4, 4)
WINDOW = 4
LONGEST = 8
HEAD = 8
"""Channels of a head."""


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    if not importlib.util.find_spec("einops"):  # MONAI would say so only when the first clip comes
        raise ValueError("kind: video_swin needs einops; install cinefab's extra `swinunetr`")
    return VideoSwin(channels, classes, frames, max(1, 2 * width // HEAD) * HEAD)


class VideoSwin(nn.Module):
    def __init__(self, channels: int, classes: int, frames: int, width: int) -> None:
        super().__init__()
        from monai.networks.blocks import PatchEmbed
        from monai.networks.nets.swin_unetr import BasicLayer, PatchMergingV2

        window = (min(math.ceil(frames / PATCH[0]), LONGEST), WINDOW, WINDOW)
        widths = [width, 2 * width, 4 * width]
        self.embed = PatchEmbed(PATCH, channels, width, nn.LayerNorm)
        self.layers = nn.ModuleList(BasicLayer(one, 2, one // HEAD, window, [0.0, 0.0], qkv_bias=True) for one in widths)
        self.merge = nn.ModuleList(PatchMergingV2(one, spatial_dims=2) for one in widths[:-1])
        self.head = nn.Sequential(nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        x = self.layers[0](self.embed(clips))
        for merge, layer in zip(self.merge, self.layers[1:], strict=True):
            merged = merge(x.permute(0, 2, 3, 4, 1).flatten(0, 1))  # (B T, H, W, C): every frame alone
            x = layer(merged.unflatten(0, (len(clips), -1)).permute(0, 4, 1, 2, 3))
        logits: Tensor = self.head(x.movedim(1, -1)).mean((1, 2, 3))
        return logits
