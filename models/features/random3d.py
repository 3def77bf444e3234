"""Features of a random 3-D convolutional network: no weights to get, the same numbers everywhere, and it sees motion.

A fallback. Random filters tell textures, edges and changes apart, not what they depict, so a large distance in them says much
and a small one little.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

from models.features import FeatureExtractor
from models.generators import Checkpoint
from models.seeding import generator

CRITIC = None
SIDE, SEED, WIDTHS, SCALE = 64, 0, (8, 16, 24), 10
"""Pixels that frames are resized to, the seed of the weights, channels by level (features are all of them, 48), and what
features are multiplied with to be about 1: KID's kernel is all but linear in smaller ones."""


class Params(BaseModel):
    """None: whoever could choose the seed could choose the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Random3d(FeatureExtractor):
    """Three levels of 3 x 3 x 3 filters, each at half the size of the last; a feature is a channel's mean over the clip.

    Every second filter of the first level sums to zero over time, so that it sees change alone and nothing of a still.
    """

    name = f"random3d (random 3-D network of seed {SEED}; grey, {SIDE} px bilinear)"
    def __init__(self) -> None:
        super().__init__()
        rng = generator(SEED)
        for level, (before, after) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False)):
            drawn = torch.randn(after, before, 3, 3, 3, generator=rng)
            if before == 1:
                drawn[1::2] -= drawn[1::2].mean(2, keepdim=True)
            self.register_buffer(f"filters{level}", drawn * (2 / drawn[0].numel()) ** 0.5)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, 48) of whole clips."""
        grey = frames.mean(2).flatten(0, 1)[:, None]
        seen = functional.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        x, found = seen.view(len(frames), 1, -1, SIDE, SIDE), []
        for level, filters in enumerate(self.buffers()):
            # edges are repeated, not black: black beyond the first and last frame would be change
            padded = functional.pad(x, (1,) * 6, mode="replicate")
            x = functional.relu(functional.conv3d(padded, filters, stride=(1 if level == 0 else 2, 2, 2)))
            found.append(x.mean((2, 3, 4)))
        return SCALE * torch.cat(found, 1)


def build(params: Params, checkpoint: Checkpoint | None) -> Random3d:
    return Random3d()
