"""Inception-v3 (Szegedy et al., CVPR 2016) as FID has it: the network of TensorFlow's archive of 2015-12-05, which Heusel et
al. (NeurIPS 2017) took, and which differs from torchvision's in how some blocks pool.

Parameters are called as in the file that pytorch-fid publishes, so that it loads as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.weight_files import WeightFile

SIDE = 299
"""Pixels, height and width, of the frames it was trained on."""

FILE = WeightFile("pt_inception-2015-12-05-6726825d.pth", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                  "in the release fid_weights of pytorch-fid")

Layer = tuple[str, int, int | tuple[int, int]]
"""Name, channels it gives, kernel (height, width)."""
Branch = Sequence[Layer | tuple[Layer, Layer]]
"""Layers one after the other; a pair looks at the same and gives its channels together."""
Pool = Literal["mean", "max"]


class Conv(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(before, after, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, and beside them a pooled one.

    Args:
        pool: of its windows of 3 x 3 pixels; "mean" leaves out what lies beyond the edge, as TensorFlow does.
        pooled: channels of the pooled branch; None: it stays as it is, and every branch ends at half the size.
    """

    def __init__(self, before: int, branches: Sequence[Branch], pool: Pool, pooled: int | None) -> None:
        super().__init__()
        self._pool, self._halves, self._names = pool, pooled is None, []
        self.channels = 0
        for branch in branches:
            channels, names = before, []
            for place, step in enumerate(branch):
                layers = (step,) if isinstance(step[0], str) else step
                shrinks = self._halves and place == len(branch) - 1
                for name, after, kernel in layers:
                    self.add_module(name, Conv(channels, after, kernel, 2 if shrinks else 1, padded=not shrinks))
                names.append([name for name, _, _ in layers])
                channels = sum(after for _, after, _ in layers)
            self._names.append(names)
            self.channels += channels
        self.channels += before if pooled is None else pooled
        if pooled is not None:
            self.branch_pool = Conv(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for names in self._names:
            seen = x
            for step in names:
                seen = torch.cat([self.get_submodule(name)(seen) for name in step], 1)
            found.append(seen)
        if self._halves:
            return torch.cat([*found, functional.max_pool2d(x, 3, 2)], 1)
        near = (functional.max_pool2d(x, 3, 1, 1) if self._pool == "max"
                else functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        return torch.cat([*found, self.branch_pool(near)], 1)


def _a(pooled: int) -> tuple[list[Branch], Pool, int | None]:
    return [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]], "mean", pooled


def _c(width: int) -> tuple[list[Branch], Pool, int | None]:
    across, down = (1, 7), (7, 1)
    return [[("branch1x1", 192, 1)],
            [("branch7x7_1", width, 1), ("branch7x7_2", width, across), ("branch7x7_3", 192, down)],
            [("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, down), ("branch7x7dbl_3", width, across),
             ("branch7x7dbl_4", width, down), ("branch7x7dbl_5", 192, across)]], "mean", 192


def _e(pool: Pool) -> tuple[list[Branch], Pool, int | None]:
    across, down = (1, 3), (3, 1)
    return [[("branch1x1", 320, 1)],
            [("branch3x3_1", 384, 1), (("branch3x3_2a", 384, across), ("branch3x3_2b", 384, down))],
            [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3),
             (("branch3x3dbl_3a", 384, across), ("branch3x3dbl_3b", 384, down))]], pool, 192


_B: tuple[list[Branch], Pool, int | None] = (
    [[("branch3x3", 384, 3)], [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]], "max", None)
_D: tuple[list[Branch], Pool, int | None] = (
    [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
     [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3)]],
    "max", None)

_BLOCKS = {"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _B, "Mixed_6b": _c(128),
           "Mixed_6c": _c(160), "Mixed_6d": _c(160), "Mixed_6e": _c(192), "Mixed_7a": _D, "Mixed_7b": _e("mean"),
           "Mixed_7c": _e("max")}


class InceptionV3(nn.Module):
    """All but its last layer, which tells 1008 classes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, padded=False)
        channels = 192
        for name, (branches, pool, pooled) in _BLOCKS.items():
            block = Mixed(channels, branches, pool, pooled)
            self.add_module(name, block)
            channels = block.channels

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, 3, 299, 299), about in [-1, 1] -> (B, 2048), averaged over places."""
        x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def load_inception(folder: Path) -> InceptionV3:
    """The file of `FILE` in a folder; in eval mode.

    Raises:
        ValueError: if it is missing or another one.
    """
    weights = FILE.tensors(folder)
    net = InceptionV3()
    net.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")})
    return net.eval()
