"""Frozen feature extractors, one file each: what distances between sets of clips are measured in.

A number means something only together with its extractor, so each has a name, which says how clips are prepared for it as well.
A file offers `Params`, `CRITIC`, the kind of critic it looks through (None: none), and `build(params, checkpoint)`, which gives
a `FeatureExtractor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class FeatureExtractor(Protocol):
    """Looks at clips and learns nothing from them."""

    @property
    def name(self) -> str:
        """The network and how clips are prepared for it, e.g. "random3d (grey, 64 px bilinear, seed 0)"."""
        ...

    @property
    def earned(self) -> Mapping[str, str]:
        """Metric of `tasks.metrics.distribution` -> the published name that is its due in these features, e.g. I3D's
        {"frechet": "FVD"}; nothing for a network that no published metric is taken in."""
        ...

    def __call__(self, frames: Tensor) -> Tensor:
        """Clips (B, T, C, H, W) in [-1, 1] -> (B, D) of whole clips, or (B, T, D) of frame after frame; float32, on the CPU."""
        ...
