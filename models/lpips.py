"""LPIPS (Zhang et al., CVPR 2018), version 0.1: how different two pictures look, by features of a network that was trained on
ImageNet, weighted as people judged. Backbone and linear heads are read from local files; their authors' package needs
torchvision.

For a layer with unit feature vectors u and v it is the mean over places of sum_c w_c (u_c - v_c)^2, and the layers are summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.clip import in_colour
from models.nets.alexnet_vgg import KNOWN, Backbone, BackboneKind, load_backbone
from models.weight_files import WeightFile

TOGETHER = 16
"""Frames that the network looks at together."""

HEADS: dict[BackboneKind, WeightFile] = {
    "vgg": WeightFile("vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
                      "in lpips/weights/v0.1 of PyPI's lpips 0.1.4"),
    "alex": WeightFile("alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
                       "in lpips/weights/v0.1 of PyPI's lpips 0.1.4"),
}

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation of colours, of pixels in [-1, 1]."""


class LpipsParams(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Path = Field(description=f"the folder that holds {KNOWN['vgg'].file.name} or {KNOWN['alex'].file.name}")
    heads: Path = Field(description=f"the folder that holds {HEADS['vgg'].name} or {HEADS['alex'].name}, of LPIPS version 0.1")
    net: BackboneKind = Field("vgg", description="VGG16, or AlexNet: smaller, and its authors' choice for comparing pictures")


class Lpips:
    """See the module.

    Args:
        heads: the weights of every channel, layer by layer, (C,) each.

    Attributes:
        word: the backbone's, for the name "LPIPS (VGG)".
    """

    def __init__(self, net: Backbone, heads: Sequence[Tensor]) -> None:
        self.word = net.known.word
        self._net, self._heads = net, heads

    @torch.no_grad()
    def __call__(self, frames: Tensor, others: Tensor) -> Tensor:
        """How far pictures (B, C, H, W) in [-1, 1] are from others, one by one.

        Returns:
            (B,), 0 for equal ones.

        Raises:
            ValueError: if they are too small for the network.
        """
        found = []
        for pair in zip(frames.split(TOGETHER), others.split(TOGETHER), strict=True):
            layers = zip(self._heads, *(self._maps(one) for one in pair), strict=True)
            found.append(torch.stack([_weighted((_unit(own) - _unit(other)).square(), head) for head, own, other in layers]))
        return torch.cat(found, 1).sum(0)

    @torch.no_grad()
    def apart(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """How far several pictures are from each other, averaged over all pairs of them.

        No pair is looked at: the mean squared difference of pairs is twice the variance (divisor S - 1).

        Args:
            draws: (B, S, C, H, W) in [-1, 1], S >= 2.

        Returns:
            (B,) LPIPS, and (B,) the mean squared difference of the features themselves, neither of unit length nor weighted,
            averaged over channels, places and layers: DIV in these features.

        Raises:
            ValueError: if they are too small for the network.
        """
        found = [self._apart(part) for part in draws.split(max(1, TOGETHER // draws.shape[1]))]
        lpips, plain = torch.cat(found, 1)
        return lpips, plain

    def _apart(self, draws: Tensor) -> Tensor:
        layers = []
        for head, seen in zip(self._heads, self._maps(draws.flatten(0, 1)), strict=True):
            of_units, of_maps = (2 * one.unflatten(0, draws.shape[:2]).var(1) for one in (_unit(seen), seen))
            layers.append(torch.stack([_weighted(of_units, head), of_maps.flatten(1).mean(1)]))
        lpips, plain = torch.stack(layers, 1)
        return torch.stack([lpips.sum(0), plain.mean(0)])

    def _maps(self, frames: Tensor) -> Iterator[Tensor]:
        if min(frames.shape[2:]) < (least := self._net.known.smallest):
            raise ValueError(f"LPIPS ({self.word}) needs frames of at least {least} x {least} pixels, not "
                             f"{frames.shape[2]} x {frames.shape[3]}")
        shift, scale = (torch.tensor(one).view(3, 1, 1) for one in (_SHIFT, _SCALE))
        return self._net.maps((in_colour(frames) - shift) / scale)


def _unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps, dim=1, eps=1e-10)


def _weighted(squares: Tensor, head: Tensor) -> Tensor:
    """(B, C, H, W) -> (B,)."""
    return (squares * head.view(-1, 1, 1)).sum(1).flatten(1).mean(1)


def load_lpips(params: LpipsParams) -> Lpips:
    """Backbone and heads from their folders.

    Raises:
        ValueError: if a file is missing or another one.
    """
    stored = HEADS[params.net].tensors(params.heads)
    heads = [stored[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(KNOWN[params.net].taps))]
    return Lpips(load_backbone(params.net, params.weights), heads)
