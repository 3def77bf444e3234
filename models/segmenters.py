"""Segmentation networks over clips: MONAI's, behind one shape convention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from models.clip import UNKNOWN

Kind = Literal["vnet", "dynunet", "swinunetr"]


class Segmenter(ModelMixin, ConfigMixin):
    """A MONAI network that takes clips and gives K + 1 logits a pixel; saved by `save_pretrained` like every other net.

    Args:
        kind: vnet (Milletari 2016), dynunet (nnU-Net's, Isensee 2021) or swinunetr (Hatamizadeh 2022).
        dims: 2 treats every frame alone, 3 the clip as a volume (T, H, W).
        channels: C of the frames.
        classes: K foreground classes.
        filters: DynUNet's channels by level. V-Net's are fixed; SwinUNETR takes the first as its feature size.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, kind: Kind = "dynunet", dims: Literal[2, 3] = 3, channels: int = 1, classes: int = 1,
                 filters: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.dims = dims
        out = classes + 1
        if kind == "dynunet":
            from monai.networks.nets import DynUNet

            levels = len(filters)
            # halving T with H and W would leave short clips one frame deep: only space is strided, as nnU-Net does for thin volumes
            stride: list[int | Sequence[int]] = [1] + [2 if dims == 2 else (1, 2, 2)] * (levels - 1)
            self.net: nn.Module = DynUNet(dims, channels, out, [3] * levels, stride, stride[1:], filters=list(filters))
            self._multiple = (1, 2 ** (levels - 1))
        elif kind == "vnet":
            from monai.networks.nets import VNet

            self.net = VNet(dims, channels, out, dropout_prob_down=None, dropout_prob_up=(None, None))
            self._multiple = (16, 16)
        elif kind == "swinunetr":
            from monai.networks.nets import SwinUNETR

            self.net = SwinUNETR(channels, out, spatial_dims=dims, feature_size=max(12, filters[0] // 12 * 12))
            self._multiple = (32, 32)
        else:
            raise ValueError(f"kind: {kind!r} is not a segmentation network; choose vnet, dynunet or swinunetr")

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) in [-1, 1] -> logits (B, T, K + 1, H, W). Padded with edge values to what the network divides by."""
        batch, time, _, height, width = frames.shape
        deep, wide = self._multiple
        if self.dims == 2:
            x = functional.pad(frames.flatten(0, 1), _padding(width, wide) + _padding(height, wide), "replicate")
            logits = self.net(x)[..., :height, :width]
            return logits.view(batch, time, *logits.shape[1:])
        x = frames.movedim(1, 2)
        x = functional.pad(x, _padding(width, wide) + _padding(height, wide) + _padding(time, deep), "replicate")
        return self.net(x)[:, :, :time, :height, :width].movedim(2, 1)


def _padding(size: int, multiple: int) -> tuple[int, int]:
    return 0, math.ceil(size / multiple) * multiple - size


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice plus cross-entropy, as nnU-Net; pixels marked UNKNOWN count in neither.

    Written here because MONAI's Dice losses take no ignored label.

    Args:
        logits: (B, T, K + 1, H, W).
        masks: (B, T, H, W) uint8 label maps.
    """
    logits = logits.movedim(2, 1).float()  # (B, K + 1, T, H, W)
    known = masks != UNKNOWN
    labels = torch.where(known, masks, torch.zeros_like(masks)).long()
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    entropy = (entropy * known).sum() / known.sum().clamp_min(1)
    probability = logits.softmax(1)[:, 1:] * known[:, None]
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:] * known[:, None]
    # over the batch, not the frame: a frame without the class would otherwise ask for exact zeros
    axes = (0, 2, 3, 4)
    overlap, total = (probability * truth).sum(axes), (probability + truth).sum(axes)
    return entropy + (1 - (2 * overlap + 1) / (total + 1)).mean()


@torch.inference_mode()
def segment(net: nn.Module, frames: Tensor, batch: int = 8) -> Tensor:
    """Most likely label of every pixel: (B, T, C, H, W) -> (B, T, H, W) uint8, on the CPU, in batches of clips."""
    net.eval()
    device = next(net.parameters()).device
    labels = [net(part.to(device)).argmax(2).to(torch.uint8).cpu() for part in frames.split(batch)]
    return torch.cat(labels)
