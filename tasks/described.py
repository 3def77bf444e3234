"""Clips of a store together with what a table says of them in words: the store has arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from models.clip import ClipBatch, ClipSource


class Words(Protocol):
    """A row that says what a clip shows: `ClipRecord`, `PlanRecord` or `ProvenanceRecord`."""

    @property
    def clip_id(self) -> str: ...

    @property
    def label(self) -> str | None: ...

    @property
    def text(self) -> str: ...


class Described:
    """`models.clip.DescribedClips`, whose conditions carry label and text.

    Raises:
        ValueError: if a clip has no row.
    """

    def __init__(self, clips: ClipSource, table: Iterable[Words]) -> None:
        said = {row.clip_id: (row.label or "", row.text) for row in table}
        if missing := [clip for clip in clips.ids if clip not in said]:
            raise ValueError(f"{len(missing)} of {len(clips)} clips have no row in their table, e.g. {missing[0]}; "
                             "run the stage that writes both again")
        self._clips, self._said, self.ids = clips, said, clips.ids

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class of every clip, "" where there is none; no pixel is read."""
        return tuple(self._said[clip][0] for clip in self.ids)

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of every clip likewise."""
        return tuple(self._said[clip][1] for clip in self.ids)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        batch = self._clips.read(rows)
        labels, texts = zip(*(self._said[clip] for clip in batch.ids), strict=True) if len(batch) else ((), ())
        return replace(batch, condition=replace(batch.condition, labels=labels, texts=texts))
