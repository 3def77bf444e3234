"""diffusers' 2-D U-Net from parameters, with the refusals that the library leaves to obscure tracebacks."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.trainer import TrainParams


class NetParams(BaseModel):
    """A diffusers UNet2DModel and its training. `attention` lists the levels with self-attention, 0 the full resolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[int] = Field(min_length=1, description="one number a level; the frame is halved between levels")
    layers: int = Field(1, gt=0, description="residual blocks a level")
    attention: list[int] = []
    norm_groups: int = Field(8, gt=0)
    train: TrainParams

    @model_validator(mode="after")
    def _fits_together(self) -> NetParams:
        if odd := [many for many in self.channels if many <= 0 or many % self.norm_groups]:
            raise ValueError(f"channels {odd} are not multiples of norm_groups {self.norm_groups}; change either")
        if beyond := [level for level in self.attention if not 0 <= level < len(self.channels)]:
            raise ValueError(f"attention {beyond} names no level; channels has levels 0 to {len(self.channels) - 1}")
        return self


def unet(params: NetParams, size: tuple[int, int], inputs: int, outputs: int, *, seed: int,
         distances: bool = False) -> UNet2DModel:
    """A U-Net with random weights that depend on `seed` alone; the process's own random state is left as it was.

    Args:
        size: height and width of the frames.
        inputs, outputs: channels.
        distances: whether it is called with `class_labels` (B,) float, embedded like timesteps: sinusoids and a two-layer MLP.

    Raises:
        ValueError: if the frame size cannot be halved as often as the levels ask.
    """
    levels = range(len(params.channels))
    factor = 2 ** (len(levels) - 1)
    if size[0] % factor or size[1] % factor:
        asked = f"must be divisible by {factor} for {len(levels)} levels of channels"
        raise ValueError(f"frame_size {list(size)} {asked}; change frame_size or the number of levels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=size,
            in_channels=inputs,
            out_channels=outputs,
            block_out_channels=tuple(params.channels),
            layers_per_block=params.layers,
            norm_num_groups=params.norm_groups,
            down_block_types=tuple("AttnDownBlock2D" if level in params.attention else "DownBlock2D" for level in levels),
            up_block_types=tuple("AttnUpBlock2D" if level in params.attention else "UpBlock2D" for level in reversed(levels)),
            attention_head_dim=min(16, *params.channels),
            class_embed_type="timestep" if distances else None,
        )
