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
        filters: DynUNet's channels by level. V-Net's are fixed; SwinUNETR takes the multiple of 12 below the first.

    Raises:
        ValueError: for another kind, no class, or fewer than three levels of DynUNet.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, kind: Kind = "dynunet", dims: Literal[2, 3] = 3, channels: int = 1, classes: int = 1,
                 filters: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: {classes}, but a segmenter needs one or more; name the mask values in `classes`")
        self.dims, self._spare_channels = dims, 0
        if kind == "dynunet":
            self.net, self._multiple = _dynunet(dims, channels, classes + 1, filters), (1, 2 ** (len(filters) - 1))
        elif kind == "vnet":
            self._spare_channels = next(many for many in (1, 2, 4, 8, 16) if many >= channels) - channels
            self.net, self._multiple = _vnet(dims, channels + self._spare_channels, classes + 1), (16, 16)
        elif kind == "swinunetr":
            self.net, self._multiple = _swinunetr(dims, channels, classes + 1, filters), (32, 32)
        else:
            raise ValueError(f"kind: {kind!r} is not a segmentation network; choose vnet, dynunet or swinunetr")

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) in [-1, 1] -> logits (B, T, K + 1, H, W). Padded with edge values to what the network divides by."""
        batch, time, _, height, width = frames.shape
        deep, wide = self._multiple
        # no side of one pixel at the deepest level: instance norm has nothing to normalise in one value
        space = _padding(width, wide, 2 * wide) + _padding(height, wide)
        if self.dims == 2:
            x = functional.pad(frames.flatten(0, 1), space, "replicate")
            logits = self.net(functional.pad(x, (0, 0, 0, 0, 0, self._spare_channels)))[..., :height, :width]
            return logits.view(batch, time, *logits.shape[1:])
        x = functional.pad(frames.movedim(1, 2), space + _padding(time, deep), "replicate")
        x = functional.pad(x, (0, 0, 0, 0, 0, 0, 0, self._spare_channels))
        return self.net(x)[:, :, :time, :height, :width].movedim(2, 1)


def _padding(size: int, multiple: int, least: int = 0) -> tuple[int, int]:
    return 0, max(least, math.ceil(size / multiple) * multiple) - size


def _dynunet(dims: int, channels: int, out: int, filters: Sequence[int]) -> nn.Module:
    from monai.networks.nets import DynUNet

    class InPlace(DynUNet):
        """MONAI's own assigns what `nn.init` returns; inside `from_pretrained` that is None, and the weights were lost."""

        @staticmethod
        def initialize_weights(module: nn.Module) -> None:
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    if len(filters) < 3:
        raise ValueError(f"filters: {list(filters)}, but DynUNet has 3 levels or more; give one number for each")
    # halving T with H and W would leave short clips one frame deep: only space is strided, as nnU-Net does for thin volumes
    halved = 2 if dims == 2 else (1, 2, 2)
    strides: Sequence[Sequence[int] | int] = [1] + [halved] * (len(filters) - 1)
    net: nn.Module = InPlace(dims, channels, out, [3] * len(filters), strides, strides[1:], filters=list(filters))
    # DynUNet registers each block a second time inside `skip_layers`, the ones it runs: safetensors refuses shared weights
    for twice in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(net, twice)
    return net


def _vnet(dims: int, channels: int, out: int) -> nn.Module:
    from monai.networks.nets import VNet

    # no dropout: the default drops half of the deepest maps, which short training on few clips does not recover from
    net: nn.Module = VNet(dims, channels, out, dropout_prob_down=None, dropout_prob_up=(None, 0.0))
    return net


def _swinunetr(dims: int, channels: int, out: int, filters: Sequence[int]) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    net: nn.Module = SwinUNETR(channels, out, spatial_dims=dims, feature_size=max(12, filters[0] // 12 * 12))
    return net


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice plus cross-entropy, as nnU-Net; pixels marked UNKNOWN count in neither.

    Dice is over the batch, not over each clip: a clip without a class would otherwise ask for exact zeros.

    Args:
        logits: (B, T, K + 1, H, W).
        masks: (B, T, H, W) uint8 label maps.
    """
    from monai.losses.dice import MaskedDiceLoss

    logits = logits.movedim(2, 1).float()  # (B, K + 1, T, H, W)
    known = masks != UNKNOWN
    labels = torch.where(known, masks, torch.zeros_like(masks)).long()
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    dice = MaskedDiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    total: Tensor = (entropy * known).sum() / known.sum().clamp_min(1) + dice(logits, labels[:, None], known[:, None].float())
    return total


@torch.inference_mode()
def segment(net: nn.Module, frames: Tensor, batch: int = 8) -> Tensor:
    """Most likely label of every pixel: (B, T, C, H, W) -> (B, T, H, W) uint8, on the CPU, in batches of clips."""
    net.eval()
    device = next(net.parameters()).device
    labels = [net(part.to(device)).argmax(2).to(torch.uint8).cpu() for part in frames.split(batch)]
    return torch.cat(labels)
