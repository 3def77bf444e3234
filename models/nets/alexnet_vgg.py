"""The convolutions of AlexNet (Krizhevsky 2014) and of VGG16 (Simonyan & Zisserman, ICLR 2015), with the ImageNet weights that
torchvision publishes: parameters are called as in its files, `features.N`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.weight_files import WeightFile

BackboneKind = Literal["vgg", "alex"]


@dataclass(frozen=True)
class Known:
    """One of the two.

    Attributes:
        word: what it is called.
        taps: places of the ReLUs that LPIPS looks at.
        smallest: pixels that a frame must have on each side for the last one to see anything.
    """

    word: str
    file: WeightFile
    taps: tuple[int, ...]
    smallest: int


KNOWN: dict[BackboneKind, Known] = {
    "vgg": Known("VGG", WeightFile("vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                                   "torchvision's VGG16, IMAGENET1K_V1"), (3, 8, 15, 22, 29), 16),
    "alex": Known("AlexNet", WeightFile("alexnet-owt-7be5be79.pth",
                                        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                                        "torchvision's AlexNet, IMAGENET1K_V1"), (1, 4, 7, 9, 11), 31),
}


class Backbone(nn.Module):
    """One of the two, up to the last ReLU that LPIPS looks at."""

    def __init__(self, kind: BackboneKind) -> None:
        super().__init__()
        self.known = KNOWN[kind]
        layers = _vgg() if kind == "vgg" else _alex()
        self.features = nn.Sequential(*layers[: self.known.taps[-1] + 1])

    def maps(self, pictures: Tensor) -> Iterator[Tensor]:
        """Of pictures (B, 3, H, W), normalised as ImageNet's, what each tapped ReLU gives: (B, C, H', W'), one at a time."""
        x = pictures
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.known.taps:
                yield x


def _alex() -> list[nn.Module]:
    def conv(before: int, after: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(before, after, kernel, stride, 2 if kernel > 3 else 1), nn.ReLU()]

    shrink = nn.MaxPool2d(3, 2)
    return [*conv(3, 64, 11, 4), shrink, *conv(64, 192, 5), shrink, *conv(192, 384, 3), *conv(384, 256, 3), *conv(256, 256, 3)]


def _vgg() -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for many, after in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(many):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2))
    return layers


def load_backbone(kind: BackboneKind, folder: Path) -> Backbone:
    """Of torchvision's file in a folder; frozen.

    Raises:
        ValueError: if it is missing or another one.
    """
    net = Backbone(kind)
    weights = net.known.file.tensors(folder)
    net.load_state_dict({key: value for key, value in weights.items() if key.startswith("features.")})
    return net.eval().requires_grad_(False)
