"""The words every storey shares: a clip, what was asked for, and where clips come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from models.unknown import UNKNOWN


@dataclass(frozen=True)
class Condition:
    """What we ask a generator for, one row per clip.

    Attributes:
        ids: condition ids, length B.
        masks: (B, T, H, W) uint8 label maps; 0 background, 1..K classes, `UNKNOWN` where not annotated.
        labels: class of each clip, "" where it is not known or none is asked for; () stands for that throughout.
        texts: what each clip shows, in words; likewise.
        reference: (B, T, C, H, W) in [-1, 1], the real training clips whose first frames (image prior) and motion are asked
            for, or stills to be animated, each in place of every frame; None where neither is, and in training, where a clip
            is its own.
    """

    ids: tuple[str, ...]
    masks: Tensor
    labels: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "texts"):
            if len(words := getattr(self, name) or ("",) * len(self.ids)) != len(self.ids):
                raise ValueError(f"{len(self.ids)} conditions, but {len(words)} {name}; give one a condition")
            object.__setattr__(self, name, words)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Condition:
        """Those at these positions, in this order; repeats allowed."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        ids, labels, texts = (tuple(words[row] for row in rows) for words in (self.ids, self.labels, self.texts))
        return Condition(ids, self.masks[index], labels, texts, None if self.reference is None else self.reference[index])

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

    @property
    def ids(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> ClipBatch:
        """Clips at these positions (not ids), in this order; repeats allowed."""
        ...


class DescribedClips(ClipSource, Protocol):
    """Clips that say of themselves, without a pixel being read, what they show; "" where nothing is known."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def texts(self) -> tuple[str, ...]: ...


class MemoryClips:
    """DescribedClips over a ClipBatch held in memory."""

    def __init__(self, batch: ClipBatch) -> None:
        self._batch = batch
        self.ids, self.labels, self.texts = batch.ids, batch.condition.labels, batch.condition.texts

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        ids = tuple(self.ids[row] for row in rows)
        return ClipBatch(ids, self._batch.frames[torch.as_tensor(list(rows))], self._batch.condition.take(rows))


def to_uint8(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] -> uint8 in 0..255, rounded half to even; values outside are clipped."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_float(frames: Tensor) -> Tensor:
    """uint8 frames in 0..255 -> float32 in [-1, 1]; the inverse of `to_uint8` on its range."""
    return frames.to(torch.float32) / 127.5 - 1


def in_colour(frames: Tensor) -> Tensor:
    """Frames (B, C, H, W) for a network of colour pictures: three channels as they are, of others their mean in all three."""
    return frames if frames.shape[1] == 3 else frames.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def clip_batch(
    ids: tuple[str, ...], stored: Mapping[str, NDArray[Any]], labels: tuple[str, ...] = (), texts: tuple[str, ...] = ()
) -> ClipBatch:
    """Clips as stores have them, "frames" (B, T, H, W, C) uint8 and "masks" (B, T, H, W), all unknown if there are none."""
    frames = torch.from_numpy(stored["frames"]).movedim(-1, 2).contiguous()
    if "masks" in stored:
        masks = torch.from_numpy(stored["masks"])
    else:
        masks = torch.full((*frames.shape[:2], *frames.shape[3:]), UNKNOWN, dtype=torch.uint8)
    return ClipBatch(ids, to_float(frames), Condition(ids, masks, labels, texts))


def spread(number: int, most: int) -> list[int]:
    """At most `most` of `number` rows, evenly from the first to the last."""
    return torch.linspace(0, number - 1, min(number, most)).long().tolist()
