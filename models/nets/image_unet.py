"""Sizes of the image models of latent generators, and a plain text-conditioned one."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.trainer import TrainParams


class ImageParams(BaseModel):
    """The image model and its training; `batch_size` counts frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[int] = Field([64, 128], min_length=1)
    layers: int = Field(1, gt=0, description="residual blocks a level")
    attention: list[int] = Field([0, 1], description="levels with attention, 0 the latents' own resolution")
    head_width: int = Field(32, gt=0)
    norm_groups: int = Field(8, gt=0)
    train: TrainParams

    @model_validator(mode="after")
    def _fits_together(self) -> ImageParams:
        if odd := [many for many in self.channels if many % self.head_width or many % self.norm_groups]:
            sizes = f"head_width {self.head_width} and norm_groups {self.norm_groups}"
            raise ValueError(f"channels {odd} must be multiples of {sizes}")
        if beyond := [level for level in self.attention if not 0 <= level < len(self.channels)]:
            raise ValueError(f"attention {beyond} names no level; channels has levels 0 to {len(self.channels) - 1}")
        return self


def image_unet(wanted: ImageParams, latent_channels: int, text_width: int) -> UNet2DConditionModel:
    """A text-conditioned U-Net of Stable Diffusion's form."""
    levels = range(len(wanted.channels))
    down = tuple("CrossAttnDownBlock2D" if level in wanted.attention else "DownBlock2D" for level in levels)
    up = tuple("CrossAttnUpBlock2D" if level in wanted.attention else "UpBlock2D" for level in reversed(levels))
    return UNet2DConditionModel(
        in_channels=latent_channels, out_channels=latent_channels, block_out_channels=tuple(wanted.channels),
        layers_per_block=wanted.layers, norm_num_groups=wanted.norm_groups, cross_attention_dim=text_width,
        down_block_types=down, up_block_types=up,
        attention_head_dim=tuple(many // wanted.head_width for many in wanted.channels),  # diffusers' name for their number
    )
