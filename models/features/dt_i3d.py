"""Features of I3D, trained on 18 classes of dynamic textures: what DTFVD (Dorkenwald et al., CVPR 2021) is taken in.

The weights are `I3D_16.pth.tar` and `I3D_32.pth.tar` of CompVis/image2video-synthesis-using-cINNs, whose README says where to
get them (its code is MIT; it names no licence for the weights). Put one into a folder. Nobody publishes a checksum, so the name
has the file's own.

As its authors measure, with three differences: they leave out clips that do not fill the last batch, and here all count; they
loop clips of fewer than 16 frames for the one net, and here those of fewer than 32 are looped for the other too; and what they
do with longer ones depends on the script, here on `frames`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.features import FeatureExtractor, together
from models.generators import Checkpoint
from models.nets.i3d import SIDE, load_i3d, looped, shown

CRITIC = None
CLASSES, EPSILON, TOGETHER = 18, 1e-5, 2
"""Of dynamic textures, of batch norms, and clips that the network looks at together."""


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description="the folder that holds I3D_16.pth.tar or I3D_32.pth.tar")
    frames: Literal[16, 32] = Field(16, description="which of them: the first frames of a clip that it sees")


class DtI3dFeatures(FeatureExtractor):
    """See the module."""

    def __init__(self, weights: Path, frames: int) -> None:
        super().__init__()
        self.earned = {"frechet": "DTFVD"}
        path = weights / f"I3D_{frames}.pth.tar"
        self._net, self._frames = load_i3d(path, CLASSES, EPSILON), frames
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        self.name = (f"dt_i3d ({CLASSES} classes of dynamic textures, {path.name}, sha256 {digest}; grey in three channels, "
                     f"{SIDE} px bilinear, the first {frames} frames, shorter clips looped)")

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, 1024) of whole clips, averaged over places and time."""
        clips = looped(frames, self._frames)
        return torch.cat([self._net.maps(shown(part, corners=True)).mean((2, 3, 4)) for part in together(clips, TOGETHER)])


def build(params: Params, checkpoint: Checkpoint | None) -> DtI3dFeatures:
    return DtI3dFeatures(params.weights, params.frames)
