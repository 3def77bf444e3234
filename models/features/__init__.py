"""Frozen feature extractors, one file each: what distances between sets of clips are measured in.

A number means something only together with its extractor, so each has a name, which says how clips are prepared for it as well.
A file offers `Params`, `CRITIC`, the kind of critic it looks through (None: none), and `build(params, checkpoint)`, which gives
a `FeatureExtractor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """Looks at clips and learns nothing from them.

    Attributes:
        name: the network and how clips are prepared for it, e.g. "random3d (grey, 64 px bilinear, seed 0)".
        earned: metric of `tasks.metrics.distribution` -> the published name that is its due in these features, e.g. I3D's
            {"frechet": "FVD"}; nothing for a network that no published metric is taken in.
    """

    name: str
    earned: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) in [-1, 1] -> (B, D) of whole clips, or (B, T, D) of frame after frame; float32.

        Clips lie on the extractor's device, and so do their features.
        """


def together(frames: Tensor, few: int) -> tuple[Tensor, ...]:
    """What a network looks at at a time: `few`, which a CPU's caches hold, or 16 times as many on a GPU."""
    return frames.split(16 * few if frames.is_cuda else few)
