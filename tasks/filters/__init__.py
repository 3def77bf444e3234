"""Filters: score, then decide. Scoring is heavy and shards freely; deciding is cheap and sees all clips at once.

A file offers `CRITIC`, the kind of critic it looks through, `Params` and `build(params, critic) -> Filter`. Nothing is ever
deleted: a decision is a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from models.clip import ClipBatch
from tasks.records import Decision


@dataclass(frozen=True)
class Evidence:
    """What a filter's `score` made of every clip of a set, in plan order.

    Attributes:
        ids: clip ids, length N.
        groups: condition id of each clip: clips of one condition are one group.
        values: (N,) or (N, D) float32.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    values: Tensor


class Filter(Protocol):
    """One step of the chain."""

    def score(self, clips: ClipBatch) -> Tensor:
        """(B,) or (B, D) float32: what `decide` needs to know of each clip."""
        ...

    def decide(self, evidence: Evidence, candidates: Sequence[str]) -> list[Decision]:
        """One decision for each candidate (the survivors of the filters before), in the given order.

        Args:
            evidence: of *all* clips of the set, whether candidates or not.
        """
        ...
