"""Clip classifiers, small versions of the published ones, one file each: filters and benchmarks look through them.

A file offers `build(channels, classes, frames, width) -> nn.Module`, which takes clips (B, channels, T, H, W) and gives logits
(B, classes). `width` is the number of channels of the first level; sizes of the papers are in each file's docstring.
"""

from __future__ import annotations

from typing import Annotated

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from pydantic import AfterValidator
from torch import Tensor, nn

from models import plugin


def _known(kind: str) -> str:
    plugin.load("models.classifiers", kind)
    return kind


ClassifierKind = Annotated[str, AfterValidator(_known)]
"""In parameters: a module of this package, checked when they are read."""


class Classifier(ModelMixin, ConfigMixin):
    """One of them behind the shape all clips have; saved by `save_pretrained` like every other net.

    Args:
        kind: a module of this package: atm, c3d, cnn_transformer, csn, i3d, r2plus1d, resnet_lstm, slowfast, tdn, timesformer,
            tsm, video_swin, vivit or x3d. timesformer and vivit need the extra `transformers`, video_swin needs `swinunetr`.
        channels: C of the frames.
        classes: K.
        frames: T; cnn_transformer, timesformer and vivit have a position for each, the others take any number.
        width: channels of the first level; of a head in timesformer and vivit, half of the first level's in video_swin.

    Raises:
        ValueError: for another kind, fewer than two classes, or an extra that is not installed.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, kind: str = "r2plus1d", channels: int = 1, classes: int = 2, frames: int = 8, width: int = 16) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: {classes}, but a classifier tells at least two apart; check the data set's labels")
        self.net: nn.Module = plugin.load("models.classifiers", kind).build(channels, classes, frames, width)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) in [-1, 1] -> logits (B, K)."""
        logits: Tensor = self.net(frames.transpose(1, 2))
        return logits


@torch.inference_mode()
def classify(net: nn.Module, frames: Tensor, batch: int = 16) -> Tensor:
    """Probabilities (N, K) of clips (N, T, C, H, W), on the CPU, `batch` clips at a time."""
    net.eval()
    device = next(net.parameters()).device
    return torch.cat([net(part.to(device)).float().softmax(1).cpu() for part in frames.split(batch)])
