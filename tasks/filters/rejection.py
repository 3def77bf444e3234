"""Rejection sampling: keep a clip if the class it was asked to show is among the k likeliest (SurV-Gen, section 2.3).

A light classifier trained on real training clips judges. This file only decides; sampling again until enough are kept is the
flow's business.
"""

from __future__ import annotations

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
    """The paper's k is 3 of seven or eight actions (it does not say which), and 1 of two events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of `critics` of kind classifier")
    top_k: int = Field(1, gt=0)
    score_only: bool = Field(False, description="keep everything, record what would be dropped")


def build(params: Params, critic: Checkpoint) -> Rejection:
    """
    Raises:
        ValueError: for a k that no clip could fail.
    """
    classes = critic.facts["labels"]
    if params.top_k >= len(classes):
        raise ValueError(f"top_k: {params.top_k} of {len(classes)} classes ({', '.join(classes)}) rejects nothing; take at "
                         f"most {len(classes) - 1}")
    return Rejection(params, critic)


class Rejection:
    """Its score is the rank of the asked class, 1 for the likeliest; equally likely classes rank in their order."""

    def __init__(self, params: Params, critic: Checkpoint) -> None:
        self.params, self.critic = params, critic

    def score(self, clips: ClipBatch) -> Tensor:
        return classifier.rank_of(self.critic, clips.frames, clips.condition.labels)

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        rank = dict(zip(evidence.ids, evidence.values.long().tolist(), strict=True))
        return [self._decision(clip, rank[clip]) for clip in candidates]

    def _decision(self, clip: str, rank: int) -> Decision:
        top = self.params.top_k
        reason = "its class is the likeliest" if rank == 1 else f"its class is number {rank} by likelihood"
        return Decision(clip, "", rank <= top, float(rank), f"<= {top}", reason)
