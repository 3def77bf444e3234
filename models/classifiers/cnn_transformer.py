"""A hybrid: 3-D convolutions for what is near in space and time, a transformer encoder to relate the frames.

The division of labour is UniFormer's (Li et al., ICLR 2022): local aggregation in the shallow layers, global attention in the
deep ones. Tokens here are whole frames, with a class token, learned positions and norms first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    return FrameTransformer(channels, classes, frames, width)


class FrameTransformer(nn.Module):
    def __init__(self, channels: int, classes: int, frames: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after in (width, 2 * width, 4 * width):
            layers += [nn.Conv3d(before, after, 3, (1, 2, 2), 1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True)]
            before = after
        self.see = nn.Sequential(*layers, nn.AdaptiveAvgPool3d((None, 1, 1)))
        self.token = nn.Parameter(torch.zeros(1, 1, before))
        self.position = nn.Parameter(0.02 * torch.randn(1, frames + 1, before))
        layer = nn.TransformerEncoderLayer(before, 4, 2 * before, dropout=0.1, batch_first=True, norm_first=True)
        self.relate = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(before), nn.Linear(before, classes))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K)."""
        batch, _, frames = clips.shape[:3]
        if frames + 1 != self.position.shape[1]:
            raise ValueError(f"clips have {frames} frames, but the classifier was built for {self.position.shape[1] - 1}")
        seen = self.see(clips).flatten(2).transpose(1, 2)  # (B, T, W)
        related = self.relate(torch.cat([self.token.expand(batch, -1, -1), seen], 1) + self.position)
        logits: Tensor = self.head(related[:, 0])
        return logits
