"""Clips for a training batch, every class equally often: otherwise a network hardly meets a rare one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch


class ClassTurns:
    """Draws rows of clips: a class first, each equally likely, then one of its clips.

    Args:
        labels: class of every clip; clips without one ("") are left out, unless none has one.
        even: false: every clip is equally likely, whatever its class.

    Attributes:
        classes: those there are, sorted.
    """

    def __init__(self, labels: Sequence[str], even: bool = True) -> None:
        rows: dict[str, list[int]] = defaultdict(list)
        for row, label in enumerate(labels):
            rows[label if even else ""].append(row)
        if len(rows) > 1:
            rows.pop("", None)
        self.classes = sorted(rows)
        self._rows = [rows[label] for label in self.classes]

    def draw(self, count: int, rng: torch.Generator) -> list[int]:
        """`count` rows, with replacement."""
        turns = torch.randint(len(self._rows), (count,), generator=rng).tolist()
        places = torch.rand(count, generator=rng).tolist()
        return [own[int(place * len(own))] for own, place in zip((self._rows[turn] for turn in turns), places, strict=True)]
