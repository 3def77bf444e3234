"""Ctrl-GenAug's denoiser: diffusers' conditional U-Net with the blocks of `sequence_attention`, for images and for clips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from models.nets.sequence_attention import SequenceBlock

TRAINED = ("gate", "attend_self.", "norm_frames.", "attend_frames.", "attend_text.to_q.", "attend_image.to_q.", "motion.",
           "conv_in.fuse.")
"""What phase 2 trains: SAM with its projections, attention over frames with its norm, the motion encoder with the fusing
convolution, and the queries of both cross-attentions (Table 1 and section 3.4)."""


class FusedInput(nn.Module):
    """conv_in, then its output and the motion features joined by a 3 x 3 convolution: identity on the former, 0 on the latter.

    The released code initialises it at random, and so begins phase 2 with another model than phase 1 ended with.
    """

    def __init__(self, conv_in: nn.Conv2d) -> None:
        super().__init__()
        self.latent, width = conv_in, conv_in.out_channels
        self.fuse = nn.Conv2d(2 * width, width, 3, padding=1)
        for parameter in self.fuse.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            self.fuse.weight[range(width), range(width), 1, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        latent, motion = x.split([self.latent.in_channels, self.fuse.out_channels], 1)
        out: Tensor = self.fuse(torch.cat([self.latent(latent), motion], 1))
        return out


class MotionEncoder(nn.Sequential):
    """Fields (B, 2, H, W) -> features (B, width, H / factor, W / factor) by ControlNet's stem of strided convolutions."""

    def __init__(self, width: int, factor: int) -> None:
        steps = int(math.log2(factor))
        if 2**steps != factor:
            raise ValueError(f"factor is {factor}, but the motion encoder halves; use a codec whose factor is a power of 2")
        widths = [16, *[min(256, 32 * 3**step) for step in range(steps)]]
        layers: list[nn.Module] = [nn.Conv2d(2, widths[0], 3, padding=1), nn.SiLU()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        super().__init__(*layers, nn.Conv2d(widths[-1], width, 3, padding=1))


class SequenceUNet(ModelMixin, ConfigMixin):
    """Predicts the noise of latent images (F = 1) or clips from class, text, image prior and motion field.

    Args:
        latent_channels: of the codec.
        channels: by level; every level but the last halves.
        layers: residual blocks a level.
        attention: levels with transformer blocks; the bottleneck always has one.
        head_width: channels of an attention head.
        text_width, image_width: of the tokens.
        classes: K; label K is the null class.
        factor: pixels to a latent pixel along each axis; the paper's m, on whose grid motion field attention works.
        sequence: False for phase 1.
        gated: see `SequenceBlock`.
        attention_over: what a sequence block has (an ablation of the paper): "S", attention over frames alone; "SK", key frames
            too; "SKM", the motion field too.

    Raises:
        ValueError: for channels that do not divide into heads or groups.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, latent_channels: int = 4, channels: Sequence[int] = (64, 128), layers: int = 1,
                 attention: Sequence[int] = (0, 1), head_width: int = 32, norm_groups: int = 8, text_width: int = 64,
                 image_width: int = 64, classes: int = 2, factor: int = 8, sequence: bool = False, gated: bool = True,
                 attention_over: Literal["S", "SK", "SKM"] = "SKM") -> None:
        super().__init__()
        if odd := [many for many in channels if many % head_width or many % norm_groups]:
            raise ValueError(f"channels {odd} must be multiples of head_width {head_width} and norm_groups {norm_groups}")
        levels = range(len(channels))
        self.unet = UNet2DConditionModel(
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            norm_num_groups=norm_groups,
            cross_attention_dim=text_width,
            attention_head_dim=tuple(many // head_width for many in channels),  # diffusers' name for the number of heads
            down_block_types=tuple("CrossAttnDownBlock2D" if level in attention else "DownBlock2D" for level in levels),
            up_block_types=tuple("CrossAttnUpBlock2D" if level in attention else "UpBlock2D" for level in reversed(levels)),
            num_class_embeds=classes + 1,
        )
        for module in list(self.unet.modules()):
            if isinstance(module, Transformer2DModel):
                width = module.proj_in.out_channels
                block = SequenceBlock(width, width // head_width, text_width, image_width, sequence, gated,
                                      augmented=attention_over != "S")
                module.transformer_blocks = nn.ModuleList([block])
        if sequence:
            self.unet.conv_in = FusedInput(self.unet.conv_in)
            self.motion = MotionEncoder(channels[0], factor)

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor, text: Tensor, image: Tensor, field: Tensor | None = None,
                trajectories: Tensor | None = None) -> Tensor:
        """
        Args:
            latents: (B, F, c, h, w) noisy.
            t: (B,) timesteps, the same for all frames of a clip.
            labels: (B,) integers, K for none.
            text: (B, L, text_width) tokens; zeros for none.
            image: (B, M, image_width) tokens; zeros for none.
            field: (B, F - 1, 2, H, W) motion in pixels, zeros or None for none; the first frame has no motion into it.
            trajectories: (B, F, h w, F), see `models.motion.trajectories`; None for none.

        Returns:
            (B, F, c, h, w).
        """
        frames = latents.shape[1]
        x = latents.flatten(0, 1)
        if self.config.sequence:
            x = torch.cat([x, self._motion_features(latents, field)], 1)
        t, labels, text, image = (one.repeat_interleave(frames, 0) for one in (t, labels, text, image))
        along = trajectories if self.config.attention_over == "SKM" else None
        extra = {"image": image, "frames": frames, "trajectories": along}
        predicted = self.unet(x, t, text, class_labels=labels, cross_attention_kwargs=extra).sample
        return predicted.unflatten(0, (-1, frames))

    def _motion_features(self, latents: Tensor, field: Tensor | None) -> Tensor:
        batch, frames, _, height, width = latents.shape
        if field is None:
            size = (height * self.config.factor, width * self.config.factor)
            field = latents.new_zeros(batch, frames - 1, 2, *size)
        features = self.motion(field.flatten(0, 1)).unflatten(0, (batch, frames - 1))
        return functional.pad(features, (0, 0, 0, 0, 0, 0, 1, 0)).flatten(0, 1)

    @classmethod
    def from_image_model(cls, image: SequenceUNet, gated: bool = True,
                         attention_over: Literal["S", "SK", "SKM"] = "SKM") -> SequenceUNet:
        """Phase 2's model: the image model's weights, what is new as it starts, and only `TRAINED` to be optimised."""
        config = {key: value for key, value in image.config.items() if not key.startswith("_")}
        model = cls(**{**config, "sequence": True, "gated": gated, "attention_over": attention_over})
        weights = {name.replace("unet.conv_in.", "unet.conv_in.latent."): value for name, value in image.state_dict().items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        if unexpected or not all(any(part in name for part in TRAINED) for name in missing):
            raise ValueError(f"the image model does not fit: unexpected {unexpected}, missing {missing}")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in TRAINED))
        return model
