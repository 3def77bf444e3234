"""Agreement: does a segmenter trained on real clips find the mask that was asked for?

For mask-conditioned clips. The bar is a low quantile of the segmenter's Dice on real annotated training clips that were held
out of its training, so a synthetic clip has to be about as readable as the least readable real ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.clip import ClipBatch
from models.critics import segmenter
from models.generators import Checkpoint
from tasks.filters import Evidence
from tasks.records import Decision

CRITIC = "segmenter"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of `critics` of kind segmenter")
    quantile: float = Field(0.05, ge=0, le=1, description="of the Dice on held-out real training clips")
    score_only: bool = Field(False, description="keep everything, record what would be dropped")


def build(params: Params, critic: Checkpoint) -> Agreement:
    return Agreement(params, critic)


class Agreement:
    """Dice between found and wanted mask, mean over classes."""

    def __init__(self, params: Params, critic: Checkpoint) -> None:
        self.params, self.critic = params, critic
        self.threshold = float(torch.tensor(critic.facts["calibration"], dtype=torch.float64).quantile(params.quantile))

    def score(self, clips: ClipBatch) -> Tensor:
        return segmenter.agreement(self.critic, clips.frames, clips.condition.masks)

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        score = dict(zip(evidence.ids, evidence.values.tolist(), strict=True))
        return [self._decision(clip, score[clip]) for clip in candidates]

    def _decision(self, clip: str, value: float) -> Decision:
        keep = value >= self.threshold
        reason = "shows its mask" if keep else f"a real-data segmenter finds the mask with Dice {value:.3f} only"
        if self.threshold == 0:
            reason = "kept: the segmenter misses held-out real masks too, so the bar is 0"
        return Decision(clip, "", keep, value, f">= {self.threshold:.3f}", reason)
