"""Features of FID's Inception-v3, frame after frame: what FID and KID are taken in.

Of the weights there are two forms, and of the way to 299 pixels three, whose numbers must not be mixed (Parmar et al., CVPR
2022): clean-fid's filters before it shrinks; pytorch-fid's and StyleGAN2-ADA's do not, and sample at different places. Frames
are never made JPEG or rounded on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.clip import in_colour
from models.features import FeatureExtractor, together
from models.generators import Checkpoint
from models.nets import inception
from models.nets.inception import SIDE, load_inception
from models.weight_files import WeightFile

CRITIC = None
TOGETHER = 16
"""Frames that the network looks at together."""

SCRIPT = WeightFile("inception-2015-12-05.pt", "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
                    "TorchScript, among StyleGAN2-ADA's pretrained metrics")
"""The same network as `models.nets.inception.FILE`, with its code."""

_WAYS = {"clean-fid": f"{SIDE} px bicubic, antialiased", "pytorch-fid": f"{SIDE} px bilinear, not antialiased",
         "StyleGAN2-ADA": f"{SIDE} px bilinear in the network, not antialiased"}


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description=f"the folder that holds {inception.FILE.name} or, in its place, {SCRIPT.name}")
    resize: Literal["clean", "legacy"] = Field(
        "clean", description="clean-fid's way to 299 pixels, or that of the file's own publisher: pytorch-fid or StyleGAN2-ADA")


class InceptionFeatures(FeatureExtractor):
    """See the module.

    Attributes:
        earned: FID and KID are taken of frames at the same place of their clips, and averaged over places.
    """

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._scripted = not (params.weights / inception.FILE.name).exists() and (params.weights / SCRIPT.name).exists()
        self._net: Any = load_script(params.weights) if self._scripted else load_inception(params.weights)
        owner = "StyleGAN2-ADA" if self._scripted else "pytorch-fid"
        self._way = "clean-fid" if params.resize == "clean" else owner
        self.name = f"inception_v3 (FID's, of 2015-12-05; {_WAYS[self._way]}, as {self._way})"
        self.earned = {"frechet": f"FID ({self._way}), mean over the clip's frames",
                                          "kid": f"KID (features as {self._way}), mean over the clip's frames"}

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 2048); of frames without three channels the grey ones are shown in all three."""
        found = [self._look(part) for part in together(frames.flatten(0, 1), TOGETHER)]
        return torch.cat(found).unflatten(0, frames.shape[:2])

    def _look(self, frames: Tensor) -> Tensor:
        if self._way == "StyleGAN2-ADA":
            seen: Tensor = self._net(in_colour((frames + 1) * 127.5), return_features=True)
        elif self._way == "pytorch-fid":
            seen = self._net(in_colour(functional.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=False)))
        else:  # with antialiasing torch's filter is PIL's, to a hundredth of a grey level
            levels = functional.interpolate((frames + 1) * 127.5, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
            seen = (self._net.layers if self._scripted else self._net)((in_colour(levels) - 128) / 128)
        return seen.flatten(1)


def load_script(folder: Path) -> torch.jit.ScriptModule:
    """The file of `SCRIPT` in a folder: its `layers` give (B, 2048) of frames (B, 3, 299, 299) in [-1, 1), and the whole, with
    `return_features`, of frames of any size in 0..255.

    Raises:
        ValueError: if it is missing or another one.
    """
    return torch.jit.load(SCRIPT.within(folder), map_location="cpu").eval()


def build(params: Params, checkpoint: Checkpoint | None) -> InceptionFeatures:
    return InceptionFeatures(params)
