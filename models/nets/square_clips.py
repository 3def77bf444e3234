"""Clips of any frame size for networks that know one square size only, as those of the `transformers` library do."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

SIDE = 64
PATCH = 16
HEADS = 4
LAYERS = 2


class SquareClips(nn.Module):
    """A network of `transformers` behind it: frames are resized to SIDE x SIDE, whatever their own sides, and not cropped.

    Resized bilinearly, smoothed first where that makes them smaller. An oblong frame is stretched: anatomy at its ends stays in
    sight, and all clips of a data set are stretched alike.

    Args:
        net: takes `pixel_values` (B, T, C, SIDE, SIDE) and gives an object with `logits` (B, K).
        frames: T of the clips; another one is refused.
        tubelet: frames of a patch; the last frame is repeated up to a multiple of it.
    """

    def __init__(self, net: nn.Module, frames: int, tubelet: int = 1) -> None:
        super().__init__()
        position(net)
        self.net, self.frames, self.spare = net, frames, whole(frames, tubelet) - frames

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, K).

        Raises:
            ValueError: for another number of frames than it was built for.
        """
        if clips.shape[2] != self.frames:
            raise ValueError(f"clips have {clips.shape[2]} frames, but the classifier was built for {self.frames}")
        frames = clips.transpose(1, 2)
        square = functional.interpolate(frames.flatten(0, 1), (SIDE, SIDE), mode="bilinear", antialias=True)
        film = functional.pad(square.unflatten(0, frames.shape[:2]).transpose(1, 2), (0, 0, 0, 0, 0, self.spare), "replicate")
        logits: Tensor = self.net(pixel_values=film.transpose(1, 2)).logits
        return logits


def whole(frames: int, tubelet: int) -> int:
    """The next multiple of `tubelet`."""
    return math.ceil(frames / tubelet) * tubelet


def library(kind: str) -> ModuleType:
    """`transformers`, which takes a second to import and which not everyone has.

    Raises:
        ValueError: if it is not installed, with the extra that brings it.
    """
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ValueError(f"kind: {kind} needs the library transformers; install cinefab's extra `transformers`") from None


def sizes(channels: int, classes: int, frames: int, width: int) -> dict[str, Any]:
    """What the configurations of all of them have: `width` channels in each of four heads, two layers.

    The library starts from weights of deviation 0.02, meant for 768 channels. With few, attention would be the same everywhere
    for long: even at the deviation that keeps the variance, 1 / sqrt(hidden), it takes twice the steps to see a motion.
    """
    hidden = HEADS * width
    return {"image_size": SIDE, "num_channels": channels, "num_frames": frames, "num_labels": classes, "hidden_size": hidden,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 4 * hidden,
            "initializer_range": 2 / math.sqrt(hidden)}


def position(net: nn.Module) -> None:
    """Start its learned positions, which the library has near 0, as large as the patches' values: else order goes unnoticed."""
    for name, parameter in net.named_parameters():
        if name.endswith(("position_embeddings", "time_embeddings")):
            nn.init.normal_(parameter)
