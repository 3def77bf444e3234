"""Features of the line's own clip classifier: what its last layer decides by."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.features import FeatureExtractor, together
from models.generators import Checkpoint

CRITIC = "classifier"
TOGETHER = 16
"""Clips that the network looks at together."""


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of critics of kind classifier")


class ClassifierFeatures(FeatureExtractor):
    """See the module. It learned to tell classes apart and may be blind to what no class depends on."""

    def __init__(self, params: Params, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._net = checkpoint.nets["classifier"].eval()
        network, classes = checkpoint.params["network"], len(checkpoint.facts["labels"])
        self.name = f"{params.critic} ({network} classifier of real training clips; own size, before its last layer)"
        self._last = [part for part in self._net.modules() if isinstance(part, nn.Linear) and part.out_features == classes][-1]

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(B, D) of whole clips; where the last layer looks at frames or places apart, their mean."""
        seen: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            parts = together(frames, TOGETHER)
            for part in parts:
                self._net(part)
        finally:
            hook.remove()
        width = self._last.in_features
        return torch.cat([one.reshape(len(part), -1, width).mean(1)
                          for one, part in zip(seen, parts, strict=True)]).float()


def build(params: Params, checkpoint: Checkpoint) -> ClassifierFeatures:
    return ClassifierFeatures(params, checkpoint)
