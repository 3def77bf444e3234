"""The autoencoder of LDDM and cINN: what moves in a clip as a small latent, and the clip again from first frame and latent.

LDDM's paper calls the latent a grid in one sentence and feeds it to AdaIN, which wants a vector, in the next. Both are here:
`grid`, a quarter of the frames and an eighth of the side, and `vector`, as in cINN, to whose code the paper's stage 1 is near.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn
from torch.nn import functional

LatentMode = Literal["grid", "vector"]
GROUPS = 8
"""Of group norm; widths are multiples of it."""
CHANGE = 5.0
"""By how much the encoder's second view, the change since the first frame, is enlarged to be about as large as the first."""
LOG_VARIANCE = -8.0
"""Of the latent at first: noise as wide as what a latent says at first would drown it."""


class ClipEncoder(ModelMixin, ConfigMixin):
    """A 3-D ResNet-18, two basic blocks at each of four levels, with group norm: batches are small.

    It sees each frame and, beside it, that frame's change since the first one, which is what the latent has to say. Frames
    alone hold the same, but hide a change of a twentieth of their own size: on lung ultrasound (341 clips of 8 frames of 32 x
    32, 300 steps) reconstructions of held-out patients' clips were then no nearer than the repeated first frame, and 2.6 dB
    nearer with it.

    Args:
        channels: of a frame.
        width: channels of the first level, doubled at every next; a multiple of 8 (ResNet-18: 64).
        mode: what the latent is.
        latent: its channels, or its length.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, channels: int = 1, width: int = 16, mode: LatentMode = "grid", latent: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2 * channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
                                  nn.GroupNorm(GROUPS, width), nn.ReLU(inplace=True))
        levels, before = list[nn.Module](), width
        for number, stride in enumerate((1, 2, 2, 1 if mode == "grid" else 2)):
            after = width * 2**number
            levels += [_block(before, after, stride), _block(after, after, 1)]
            before = after
        self.levels = nn.Sequential(*levels)
        last = nn.Conv3d(before, 2 * latent, 1) if mode == "grid" else nn.Linear(4 * before, 2 * latent)
        nn.init.zeros_(last.weight[latent:])
        nn.init.constant_(last.get_parameter("bias")[latent:], LOG_VARIANCE)
        self.head = last if mode == "grid" else nn.Sequential(nn.AdaptiveAvgPool3d((1, 2, 2)), nn.Flatten(), last)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C, H, W) -> mean and log variance, (B, c, T / 4, H / 8, W / 8) rounded up, or (B, c)."""
        seen = torch.cat([clips, CHANGE * (clips - clips[:, :1])], 2).transpose(1, 2)
        mean, log_variance = self.head(self.levels(self.stem(seen))).chunk(2, 1)
        return mean, log_variance.clamp(-20, 10)


def _block(before: int, after: int, stride: int) -> ResNetBlock:
    norm = ("group", {"num_groups": GROUPS})
    shortcut = None if before == after and stride == 1 else nn.Sequential(
        nn.Conv3d(before, after, 1, stride, bias=False), nn.GroupNorm(GROUPS, after))
    return ResNetBlock(before, after, stride=stride, downsample=shortcut, norm=norm)


class ClipDecoder(ModelMixin, ConfigMixin):
    """First frame and latent -> the frames that follow. At every scale the first frame speaks by SPADE, the latent by AdaIN.

    Args:
        channels, frames, height, width: of a clip; `frames` counts the first one.
        features: channels at the frame's own scale, doubled at every smaller one up to eight times.
        mode, latent: as the encoder's.
        residual: what is decoded is added to the first frame, nothing at first, so that training starts at a clip that
            repeats it; false: the frames themselves, through tanh, as in cINN.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, channels: int = 1, frames: int = 8, height: int = 48, width: int = 48, features: int = 16,
                 mode: LatentMode = "grid", latent: int = 4, residual: bool = True) -> None:
        super().__init__()
        deepest = 3 if mode == "grid" or min(height, width) < 32 else 4  # instance norm needs more than one place
        self.sizes = [(-(-(frames - 1) // 2 ** max(0, level - 1)), -(-height // 2**level), -(-width // 2**level))
                      for level in range(deepest, -1, -1)]
        wide = [features * min(8, 2**level) for level in range(deepest, -1, -1)]
        self.start = (nn.Conv3d(latent, wide[0], 3, padding=1) if mode == "grid"
                      else nn.Linear(latent, wide[0] * self.sizes[0][0] * self.sizes[0][1] * self.sizes[0][2]))
        self.blocks = nn.ModuleList(_DecoderBlock(before, after, channels, latent)
                                    for before, after in zip([wide[0], *wide], wide, strict=False))
        self.out = nn.Conv3d(wide[-1], channels, 3, padding=1)
        if residual:
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter)

    def forward(self, first: Tensor, latent: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and the encoder's latent -> (B, T, C, H, W), whose frame 0 is `first` itself.

        With `residual`, values may lie a little outside [-1, 1].
        """
        vector = latent.mean((2, 3, 4)) if self.config.mode == "grid" else latent
        if self.config.mode == "grid":
            x = functional.interpolate(self.start(latent), self.sizes[0])
        else:
            x = self.start(latent).view(len(latent), -1, *self.sizes[0])
        for block, size in zip(self.blocks, self.sizes, strict=True):
            x = block(functional.interpolate(x, size), first, vector)
        change = self.out(functional.leaky_relu(x, 0.2)).transpose(1, 2)
        following = first[:, None] + change if self.config.residual else change.tanh()
        return torch.cat([first[:, None], following], 1)


class _DecoderBlock(nn.Module):
    """SPADE by the first frame, convolution, AdaIN by the latent, convolution; a shortcut around all."""

    def __init__(self, before: int, after: int, channels: int, latent: int) -> None:
        super().__init__()
        self.spade = Spade(before, channels)
        self.first = nn.Conv3d(before, after, 3, padding=1)
        self.adain = AdaIN(after, latent)
        self.second = nn.Conv3d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else nn.Conv3d(before, after, 1, bias=False)

    def forward(self, x: Tensor, first: Tensor, vector: Tensor) -> Tensor:
        found = self.first(functional.leaky_relu(self.spade(x, first), 0.2))
        found = self.second(functional.leaky_relu(self.adain(found, vector), 0.2))
        out: Tensor = self.shortcut(x) + found
        return out


class Spade(nn.Module):
    """Instance norm, then a scale and a shift of each place out of the first frame (Park et al. 2019).

    MONAI's would take the frame as a clip that repeats it, and convolve every copy.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(features)
        self.shared = nn.Conv2d(channels, features, 3, padding=1)
        self.place = nn.Conv2d(features, 2 * features, 3, padding=1)

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        seen = functional.adaptive_avg_pool2d(first, (x.shape[3], x.shape[4]))  # averaged rather than picked
        scale, shift = self.place(functional.leaky_relu(self.shared(seen), 0.2))[:, :, None].chunk(2, 1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class AdaIN(nn.Module):
    """Instance norm, then a scale and a shift of each channel out of a vector (Huang & Belongie 2017); 1 and 0 at first."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(channels)
        self.style = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.style.weight)
        nn.init.zeros_(self.style.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.style(vector)[:, :, None, None, None].chunk(2, 1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


def latent_shape(mode: LatentMode, latent: int, clip: Sequence[int]) -> tuple[int, ...]:
    """Of the encoder's output for clips of shape (T, C, H, W)."""
    frames, _, height, width = clip
    return (latent, -(-frames // 4), -(-height // 8), -(-width // 8)) if mode == "grid" else (latent,)
