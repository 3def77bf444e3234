"""Similarity: of clips that look alike, keep the first (Ctrl-GenAug, Algorithm 1, stage 3).

The released code compares a cosine (at most 1) with 98 and so never drops anything; here both are percent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models.clip import ClipBatch
from models.critics import vae
from models.generators import Checkpoint
from tasks.devices import first_device
from tasks.filters import Evidence
from tasks.records import Decision

CRITIC = "vae"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str = Field(description="an entry of `critics` of kind vae")
    score_only: bool = Field(False, description="keep everything, record what would be dropped")
    threshold: float = Field(98.0, gt=0, le=100, description="percent; from here on a clip is a duplicate")
    scope: Literal["group", "all"] = Field(
        "group", description="compare within one condition (the paper's text) or with every kept clip (its printed algorithm)"
    )


def build(params: Params, critic: Checkpoint) -> Similarity:
    return Similarity(params, critic)


def embed(latents: Tensor) -> Tensor:
    """Unit vectors whose dot product is the mean over frames of the frames' cosine: (B, T, c, h, w) -> (B, T c h w)."""
    frames = functional.normalize(latents.flatten(2).float(), dim=2)
    return (frames / frames.shape[1] ** 0.5).flatten(1)


def greedy(vectors: Tensor, threshold: float, block: int = 512) -> tuple[Tensor, Tensor]:
    """Keep a vector if its similarity to every one kept before is below the threshold.

    One matrix product per pair of blocks, where the vectors are; beside them, memory is flat in their number.

    Args:
        vectors: (N, D) unit vectors in the order of their right to stay.
        threshold: percent.

    Returns:
        (N,) bool kept, and (N,) float32 highest similarity, in percent, to one kept before (-inf for the first); on the CPU.
    """
    kept = torch.zeros(len(vectors), dtype=torch.bool)
    highest = torch.full((len(vectors),), -torch.inf)
    for start in range(0, len(vectors), block):
        part = vectors[start : start + block]
        before = vectors.new_full((len(part),), -torch.inf)
        for earlier in range(0, start, block):
            known = vectors[earlier : earlier + block][kept[earlier : earlier + block].to(vectors.device)]
            if len(known):
                before = torch.maximum(before, 100 * (part @ known.T).amax(1))
        before, within = before.cpu(), 100 * (part @ part.T).cpu()
        alive = torch.zeros(len(part), dtype=torch.bool)
        for row in range(len(part)):
            if alive.any():
                before[row] = torch.maximum(before[row], within[row][alive].max())
            alive[row] = before[row] < threshold
        kept[start : start + len(part)], highest[start : start + len(part)] = alive, before
    return kept, highest


class Similarity:
    """Greedy in plan order: the first of a group of look-alikes stays."""

    def __init__(self, params: Params, critic: Checkpoint) -> None:
        self.params, self.critic = params, critic

    def score(self, clips: ClipBatch) -> Tensor:
        return embed(vae.latents(self.critic, clips.frames))

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        row = {clip: number for number, clip in enumerate(evidence.ids)}
        groups: dict[str, list[str]] = defaultdict(list)
        for clip in candidates:
            groups[evidence.groups[row[clip]] if self.params.scope == "group" else "all"].append(clip)
        verdicts: dict[str, Decision] = {}
        for members in groups.values():
            vectors = evidence.values[[row[clip] for clip in members]].to(first_device())
            kept, highest = greedy(vectors, self.params.threshold)
            for clip, keep, value in zip(members, kept.tolist(), highest.tolist(), strict=True):
                first = value == -math.inf
                reason = "the first of its kind" if first else "unlike the clips kept before"
                if not keep:
                    reason = f"{value:.2f} % like a clip kept before"
                # tables have no -inf: the first, which is compared with nothing, scores 0
                verdicts[clip] = Decision(clip, "", keep, 0.0 if first else value, f"< {self.params.threshold:g}", reason)
        return [verdicts[clip] for clip in candidates]
