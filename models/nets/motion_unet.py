"""An image U-Net becomes a video U-Net: diffusers' motion modules, from nothing or from an AnimateDiff adapter, and a class.

What is added is kept apart from what was there: motion modules in diffusers' `MotionAdapter`, which any AnimateDiff pipeline
reads, the class in a `LabelTable`.
"""

from __future__ import annotations

from typing import Any

from diffusers import ConfigMixin, ModelMixin, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

TRAINED = ("motion_modules", "cond_proj")
"""What stage 2 trains; `pos_embed` is sinusoidal and has no weights."""


class LabelTable(ModelMixin, ConfigMixin):
    """A vector for every class, zero at first, added to a timestep's sinusoids before diffusers embeds them.

    SurV-Gen does not say where its label embedding goes; there diffusers' video U-Net has a place (`timestep_cond`), so that a
    plain pipeline, which gives none, samples without a class.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Linear(classes, width, bias=False)
        nn.init.zeros_(self.table.weight)


def new_adapter(unet: UNet2DConditionModel, heads: int, longest: int, mid_block: bool) -> MotionAdapter:
    """Motion modules for an image U-Net, their outputs zero: the video model starts exactly as the image model.

    Args:
        heads: of temporal attention.
        longest: frames of a clip at most.
        mid_block: AnimateDiff v2 has a module in the middle too; SurV-Gen's place is after every spatial layer.
    """
    config = unet.config
    adapter = MotionAdapter(
        block_out_channels=tuple(config.block_out_channels), motion_layers_per_block=config.layers_per_block,
        motion_num_attention_heads=heads, motion_norm_num_groups=config.norm_num_groups, motion_max_seq_length=longest,
        use_motion_mid_block=mid_block,
    )
    for name, parameter in adapter.named_parameters():
        if name.rsplit(".", 1)[0].endswith("proj_out"):
            nn.init.zeros_(parameter)
    return adapter


class MotionUNet(nn.Module):
    """Predicts for latent clips; image U-Net and adapter are copied, so that training leaves both as they are.

    Args:
        labels: None for an adapter without classes.
    """

    def __init__(self, unet: UNet2DConditionModel, adapter: MotionAdapter, labels: LabelTable | None = None) -> None:
        super().__init__()
        self.net: Any = UNetMotionModel.from_unet2d(unet, adapter)
        if labels is not None:
            table = nn.Linear(labels.config.classes, labels.config.width, bias=False)
            table.load_state_dict(labels.table.state_dict())
            self.net.time_embedding.cond_proj = table
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(part in name for part in TRAINED))

    def forward(self, latents: Tensor, t: Tensor, text: Tensor, labels: Tensor | None = None) -> Tensor:
        """
        Args:
            latents: (B, F, c, h, w) noisy.
            t: (B,) timesteps.
            text: (B, L, width) tokens.
            labels: (B,) integers, -1 for none; None for none at all.

        Returns:
            (B, F, c, h, w).
        """
        frames, condition = latents.shape[1], None
        if labels is not None:
            classes = self.net.time_embedding.cond_proj.in_features
            condition = functional.one_hot(labels.clamp_min(0), classes) * (labels >= 0)[:, None]
            condition = condition.to(latents)
        found: Tensor = self.net(latents.transpose(1, 2), t, text.repeat_interleave(frames, 0), timestep_cond=condition).sample
        return found.transpose(1, 2)

    def parts(self, adapter: MotionAdapter, labels: LabelTable) -> tuple[MotionAdapter, LabelTable]:
        """What was trained, put back into an adapter and a table of its own form."""
        state = {name: value for name, value in self.net.state_dict().items() if "motion_modules" in name}
        adapter.load_state_dict(state)
        labels.table.load_state_dict(self.net.time_embedding.cond_proj.state_dict())
        return adapter, labels


def framewise(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """The image model on every frame of (B, F, c, h, w) alone."""
    frames = latents.shape[1]
    found: Tensor = unet(latents.flatten(0, 1), t.repeat_interleave(frames, 0), text.repeat_interleave(frames, 0)).sample
    return found.unflatten(0, (-1, frames))
