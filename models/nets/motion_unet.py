"""An image U-Net becomes a video U-Net: diffusers' motion modules, from nothing or from an AnimateDiff adapter, and a class.

What is added is kept apart from what was there: motion modules in diffusers' `MotionAdapter`, which any AnimateDiff pipeline
reads, the class in a `LabelTable`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, Literal

from diffusers import ConfigMixin, ModelMixin, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn
from torch.nn import functional

LabelPlace = Literal["time", "modules"]
"""Where the class is added, which SurV-Gen does not say: to the timestep's sinusoids, diffusers' own `timestep_cond`; or inside
every motion module, after its norm. Motion modules see no timestep: from the first place the class reaches them only as far as
the frozen image model lets it through. Without a class, as in a plain diffusers pipeline, nothing is added."""


class LabelTable(ModelMixin, ConfigMixin):
    """A vector for every class, zero at first.

    Args:
        classes: K.
        widths: of the places it is added at, one after the other.
        place: see `LabelPlace`.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, classes: int, widths: list[int], place: LabelPlace = "modules") -> None:
        super().__init__()
        self.table = nn.Linear(classes, sum(widths), bias=False)
        nn.init.zeros_(self.table.weight)


def new_labels(unet: UNet2DConditionModel, adapter: MotionAdapter, classes: int, place: LabelPlace) -> LabelTable:
    """A table for the video model of these two."""
    if place == "time":
        return LabelTable(classes, [unet.config.block_out_channels[0]], place)
    return LabelTable(classes, [module.in_channels for module in _modules(adapter)], place)


def _modules(net: nn.Module) -> list[AnimateDiffTransformer3D]:
    """By name, which an adapter and the video model made of it share; not so the order in which they hold them."""
    found = {name: module for name, module in net.named_modules() if isinstance(module, AnimateDiffTransformer3D)}
    return [module for _, module in sorted(found.items())]


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
        self.labels, self._in_time = deepcopy(labels), labels is not None and labels.config.place == "time"
        self._added: tuple[Tensor, ...] = ()
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_("motion_modules" in name)
        if self.labels is not None and self._in_time:
            self.net.time_embedding.cond_proj = self.labels.table
        elif self.labels is not None:
            for place, module in enumerate(_modules(self.net)):
                module.norm.register_forward_hook(partial(self._add, place))

    def _add(self, place: int, norm: nn.Module, given: Any, found: Tensor) -> Tensor:
        """The class's vector to what a motion module sees, (B, C, F, h, w)."""
        return found + self._added[place][:, :, None, None, None] if self._added else found

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
        frames, chosen = latents.shape[1], None
        self._added = ()
        if labels is not None and self.labels is not None:
            chosen = functional.one_hot(labels.clamp_min(0), self.labels.config.classes) * (labels >= 0)[:, None]
            chosen = chosen.to(latents)
            if not self._in_time:
                self._added = self.labels.table(chosen).split(self.labels.config.widths, 1)
        found: Tensor = self.net(latents.transpose(1, 2), t, text.repeat_interleave(frames, 0),
                                 timestep_cond=chosen if self._in_time else None).sample
        return found.transpose(1, 2)

    def parts(self, adapter: MotionAdapter, labels: LabelTable) -> tuple[MotionAdapter, LabelTable]:
        """What was trained, put back into an adapter and a table of its own form."""
        state = {name: value for name, value in self.net.state_dict().items() if "motion_modules" in name}
        adapter.load_state_dict(state)
        if self.labels is not None:
            labels.load_state_dict(self.labels.state_dict())
        return adapter, labels


def framewise(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """The image model on every frame of (B, F, c, h, w) alone."""
    frames = latents.shape[1]
    found: Tensor = unet(latents.flatten(0, 1), t.repeat_interleave(frames, 0), text.repeat_interleave(frames, 0)).sample
    return found.unflatten(0, (-1, frames))
