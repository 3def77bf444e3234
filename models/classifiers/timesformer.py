"""TimeSformer: attention along time, then within the frame, in every block (Bertasius et al., ICML 2021; there 768 channels).

The `transformers` library's, from a small configuration with random weights; frames are resized, see `SquareClips`.
"""

from __future__ import annotations

from torch import nn

from models.nets.square_clips import PATCH, SquareClips, library, sizes


def build(channels: int, classes: int, frames: int, width: int) -> nn.Module:
    hugging = library("timesformer")
    config = hugging.TimesformerConfig(patch_size=PATCH, attention_type="divided_space_time",
                                       **sizes(channels, classes, frames, width))
    return SquareClips(hugging.TimesformerForVideoClassification(config), frames)
