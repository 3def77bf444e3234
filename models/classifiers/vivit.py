"""ViViT: every patch of two frames attends to every other of the clip (Arnab et al., ICCV 2021, model 1; there 768 channels).

The `transformers` library's, from a small configuration with random weights; frames are resized, see `SquareClips`.
"""

from __future__ import annotations

from torch import nn

from models.nets.square_clips import PATCH, SquareClips, library, sizes, whole

TUBELET = 2


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    hugging = library("vivit")
    config = hugging.VivitConfig(tubelet_size=[TUBELET, PATCH, PATCH],
                                 **sizes(channels, classes, whole(frames, TUBELET), width))
    return SquareClips(hugging.VivitForVideoClassification(config), frames, TUBELET)
