"""The words every storey shares: a clip, what was asked for, and where clips come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

UNKNOWN = 255
"""Mask value of a pixel nobody annotated. A frame is annotated if none of its pixels carries it."""


@dataclass(frozen=True)
class Condition:
    """What we ask a generator for, one row per clip.

    Attributes:
        ids: condition ids, length B.
        masks: (B, T, H, W) uint8 label maps; 0 background, 1..K classes, `UNKNOWN` where not annotated.
    """

    ids: tuple[str, ...]
    masks: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def annotated(self) -> Tensor:
        """(B, T) bool: which frames have a mask."""
        return (self.masks != UNKNOWN).flatten(2).all(2)


@dataclass(frozen=True)
class ClipBatch:
    """Clips with their conditions. Nothing is ever added to it: scores, decisions and features are separate tables.

    Attributes:
        ids: clip ids, length B.
        frames: (B, T, C, H, W) float32 in [-1, 1].
        condition: what each clip shows, same order.
    """

    ids: tuple[str, ...]
    frames: Tensor
    condition: Condition

    def __len__(self) -> int:
        return len(self.ids)


class ClipSource(Protocol):
    """Random access to clips of one shape; `tasks.store` implements it, tests use `MemoryClips`."""

    ids: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> ClipBatch:
        """Clips at these positions (not ids), in this order; repeats allowed."""
        ...


class MemoryClips:
    """A ClipSource over a ClipBatch held in memory."""

    def __init__(self, batch: ClipBatch) -> None:
        self._batch = batch
        self.ids = batch.ids

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        index = torch.as_tensor(list(rows), dtype=torch.long)
        masks = self._batch.condition.masks[index]
        ids = tuple(self.ids[row] for row in rows)
        condition = Condition(tuple(self._batch.condition.ids[row] for row in rows), masks)
        return ClipBatch(ids, self._batch.frames[index], condition)


def to_uint8(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] -> uint8 in 0..255, rounded half to even; values outside are clipped."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_float(frames: Tensor) -> Tensor:
    """uint8 frames in 0..255 -> float32 in [-1, 1]; the inverse of `to_uint8` on its range."""
    return frames.to(torch.float32) / 127.5 - 1
