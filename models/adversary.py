"""cINN's adversarial terms for an autoencoder of clips: a discriminator of clips and one of frames, by hinge loss.

One optimiser trains both sides in the same step. Discriminators see reconstructions without their past, and the autoencoder
sees discriminators whose weights are held still, so neither side's gradient reaches the other.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call

from models.trainer import TrainParams


class AdversaryParams(BaseModel):
    """Weights as in cINN, whose other terms are larger by 20 (L1) and 30 (LPIPS); ours are 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(16, gt=0, description="of a discriminator's first level")
    levels: int = Field(2, gt=0)
    weight: float = Field(0.05, gt=0)
    feature_weight: float = Field(0.5, ge=0, description="L1 between what the clip discriminator sees in both")
    penalty: float = Field(10.0, ge=0, description="squared gradient at real clips (R1)")
    train: TrainParams = Field(description="the phase with it, after the one without: cINN begins with it after one epoch")


class Adversary(nn.Module):
    """Two of MONAI's patch discriminators, with instance norm: a batch norm would see real and reconstructed batches mixed.

    MONAI's own hinge loss passes judgements through tanh, and hinges the autoencoder's side too; this is the plain one.
    """

    def __init__(self, params: AdversaryParams, channels: int) -> None:
        super().__init__()
        self.params = params
        sizes: dict[str, Any] = {"channels": params.channels, "in_channels": channels, "num_layers_d": params.levels,
                                 "norm": "INSTANCE", "kernel_size": 3, "padding": 1}
        self.clips, self.frames = PatchDiscriminator(3, **sizes), PatchDiscriminator(2, **sizes)

    def forward(self, real: Tensor, found: Tensor) -> Tensor:
        """What both sides are to minimise, one number, for (B, T, C, H, W) clips and their reconstructions."""
        params, total = self.params, real.new_zeros(())
        for net, see in ((self.clips, _as_volumes), (self.frames, _as_frames)):
            still = {name: value.detach() for name, value in net.named_parameters()}
            *seen, judged = functional_call(net, still, see(found))
            total = total - params.weight * judged.mean()
            if net is self.clips and params.feature_weight:
                *wanted, _ = functional_call(net, still, see(real))
                pairs = zip(seen, wanted, strict=True)
                total = total + params.feature_weight * sum((one - other.detach()).abs().mean() for one, other in pairs)
            total = total + self._own(net, see(real), see(found.detach()))
        return total

    def _own(self, net: nn.Module, real: Tensor, found: Tensor) -> Tensor:
        """The discriminator's loss."""
        real = real.detach().requires_grad_(self.params.penalty > 0)
        judged = net(real)[-1]
        loss = ((1 - judged).relu().mean() + (1 + net(found)[-1]).relu().mean()) / 2
        if self.params.penalty:
            slope, = torch.autograd.grad(judged.sum(), real, create_graph=True)
            loss = loss + self.params.penalty / 2 * slope.square().flatten(1).sum(1).mean() / slope[0].numel()
        return loss


def _as_volumes(clips: Tensor) -> Tensor:
    return clips.transpose(1, 2)


def _as_frames(clips: Tensor) -> Tensor:
    return clips.flatten(0, 1)
