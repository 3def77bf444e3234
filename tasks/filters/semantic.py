"""Semantic: drop clips that do not look like the class they were asked to show (Ctrl-GenAug, Algorithm 1, stage 1).

A classifier trained on real training clips gives every synthetic clip a cross-entropy loss; of each group (the clips of one
condition) those above alpha times the group's mean are dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.clip import ClipBatch
from models.critics import classifier
from models.generators import Checkpoint
from tasks.filters import Evidence
from tasks.records import Decision

CRITIC = "classifier"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of `critics` of kind classifier")
    alpha: float = Field(1.0, gt=0, description="of the group's mean loss")
    score_only: bool = Field(False, description="keep everything, record what would be dropped")


def build(params: Params, critic: Checkpoint) -> Semantic:
    return Semantic(params, critic)


class Semantic:
    """Keeps a loss of at most alpha times its group's mean; with alpha 1 a group of one, or of equal losses, is kept whole."""

    def __init__(self, params: Params, critic: Checkpoint) -> None:
        self.params, self.critic = params, critic

    def score(self, clips: ClipBatch) -> Tensor:
        return classifier.loss_of(self.critic, clips.frames, clips.condition.labels)

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        loss = dict(zip(evidence.ids, evidence.values.double().tolist(), strict=True))
        group = dict(zip(evidence.ids, evidence.groups, strict=True))
        members: dict[str, list[float]] = defaultdict(list)
        for clip in evidence.ids:
            members[group[clip]].append(loss[clip])
        # rounding must not drop a clip of a group of equal losses
        limit = {name: self.params.alpha * sum(losses) / len(losses) * (1 + 1e-9) for name, losses in members.items()}
        return [self._decision(clip, loss[clip], limit[group[clip]]) for clip in candidates]

    def _decision(self, clip: str, loss: float, limit: float) -> Decision:
        reason = "looks like its class"
        if loss > limit:
            reason = f"the loss of its class, {loss:.3f}, is above its group's bar of {limit:.3f}"
        return Decision(clip, "", loss <= limit, loss, f"<= {self.params.alpha:g} x the group's mean", reason)
