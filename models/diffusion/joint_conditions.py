"""Which conditions a training clip is shown with: Ctrl-GenAug's joint-condition training (section 3.6 of the specification)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.motion import alone


class DropParams(BaseModel):
    """The released code keeps all with 0.1, drops all with 0.1 and otherwise each with 0.5; it never drops the class.

    There guidance cannot amplify the class, and trajectories leak the motion when it is dropped. Here a class is dropped with
    `label` too, and trajectories go with their motion field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_all: float = Field(0.1, ge=0, le=1)
    all: float = Field(0.1, ge=0, le=1)
    each: float = Field(0.5, ge=0, le=1, description="text, image prior and motion, independently, when neither of the above")
    label: float = Field(0.1, ge=0, le=1, description="the class, then")


@dataclass(frozen=True)
class Given:
    """What `SequenceUNet` takes beside latents and timesteps; see there for shapes."""

    labels: Tensor
    text: Tensor
    image: Tensor
    field: Tensor | None = None
    trajectories: Tensor | None = None

    def keep(self, kept: Tensor, null: int) -> Given:
        """Each condition of the clips whose flag says so; the others have null class, zero tokens, zero field and straight
        trajectories of one patch each.

        Args:
            kept: (B, 4) bool: label, text, image, motion.
            null: number of the null class.
        """
        label, text, image, motion = kept.T
        held = replace(self, labels=self.labels.where(label, null), text=self.text * text[:, None, None],
                       image=self.image * image[:, None, None])
        if self.field is None or self.trajectories is None:
            return held
        table = self.trajectories.where(motion[:, None, None, None], alone(self.trajectories))
        return replace(held, field=self.field * motion[:, None, None, None, None], trajectories=table)


def drop(given: Given, params: DropParams, null: int, rng: torch.Generator) -> Given:
    """One draw for each clip of a batch.

    Args:
        null: number of the null class.
        rng: CPU generator.
    """
    clips, device = len(given.labels), given.labels.device
    fate = torch.rand(clips, 1, generator=rng)
    chance = torch.tensor([params.label, params.each, params.each, params.each])
    kept = torch.rand(clips, 4, generator=rng) >= chance
    kept = (kept | (fate < params.keep_all)) & (fate < 1 - params.all)
    return given.keep(kept.to(device), null)
