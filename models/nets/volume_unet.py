"""A video as a volume: diffusers' 3-D U-Net (space, then time, in every block) with a class as its only token."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import ConfigMixin, ModelMixin, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from pydantic import Field
from torch import Tensor, nn

from models.nets.image_unet import ImageParams


class VolumeParams(ImageParams):
    """The network and its training; `batch_size` counts clips. Attention level 0 is the full resolution."""

    channels: list[int] = Field([32, 64], min_length=1, description="by level; every level but the last halves the frame")
    attention: list[int] = Field([1], description="levels with attention")
    head_width: int = Field(16, gt=0)


class VolumeUNet(ModelMixin, ConfigMixin):
    """
    Args:
        inputs: channels of a frame, or of its latents.
        classes: K; label K is the null class.
        channels, layers, attention, head_width, norm_groups: see `VolumeParams`.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, inputs: int, classes: int, channels: Sequence[int] = (32, 64), layers: int = 1,
                 attention: Sequence[int] = (1,), head_width: int = 16, norm_groups: int = 8) -> None:
        super().__init__()
        levels = range(len(channels))
        self.labels = nn.Embedding(classes + 1, channels[0])
        self.unet = UNet3DConditionModel(
            in_channels=inputs, out_channels=inputs, block_out_channels=tuple(channels), layers_per_block=layers,
            norm_num_groups=norm_groups, cross_attention_dim=channels[0], attention_head_dim=head_width,
            down_block_types=tuple("CrossAttnDownBlock3D" if level in attention else "DownBlock3D" for level in levels),
            up_block_types=tuple("CrossAttnUpBlock3D" if level in attention else "UpBlock3D" for level in reversed(levels)),
        )

    def forward(self, clips: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """(B, F, c, h, w) noisy, (B,) timesteps and (B,) labels -> (B, F, c, h, w)."""
        found: Tensor = self.unet(clips.transpose(1, 2), t, self.labels(labels)[:, None]).sample
        return found.transpose(1, 2)
