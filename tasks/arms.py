"""What a benchmark's arm trains on: sources of clips, their order and shares; and that none comes from test patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from models.clip import ClipBatch, ClipSource
from models.trainer import TrainParams, TrainState
from tasks.described import Described
from tasks.params import ArmParams
from tasks.patients import outside_name
from tasks.records import ClipRecord, Decision, ProvenanceRecord, accepted
from tasks.store import ClipStore
from tasks.tables import read_table

Sources = list[tuple[ClipSource, float]]
"""Clips with their shares of a batch."""


class NoStates:
    """A run is short and done again when killed; see `tasks.benchmark` for what is kept."""

    def load(self, phase: str) -> TrainState | None:
        return None

    def save(self, phase: str, state: TrainState) -> None:
        pass


def refuse_leak(records: Sequence[ClipRecord], synthetic: Path | None) -> None:
    """Nothing trained on may come from a test patient: not a training clip, nor the condition of any synthetic one.

    Args:
        synthetic: folder of a set; all its clips are checked, whether the chain kept them or not.

    Raises:
        ValueError: naming the patients, or the near-duplicate groups, on both sides.
    """
    test = {record.patient for record in records if record.split == "test"}
    train = {record.patient for record in records if record.split == "train"}
    groups = [{record.group for record in records if record.split == split} for split in ("train", "test")]
    asked = {patient for record in read_table(synthetic / "provenance.parquet", ProvenanceRecord)
             for patient in record.patients} if synthetic else set()
    asked |= {name for patient in asked if (name := outside_name(patient))}
    for what, shared in (
        ("training and test patients", test & train),
        ("near-duplicate groups of training and test clips", groups[0] & groups[1]),
        (f"patients behind the masks of {synthetic} and test patients", test & asked),
    ):
        if shared:
            names = ", ".join(sorted(map(str, shared))[:5])
            raise ValueError(f"leak: {what} share {names} ({len(shared)} in all); prepare and sample again from one split")


def synthetic_clips(synthetic: Path, decisions: Path | None) -> Described:
    """The set's clips with the words they were asked by, in store order, without those any filter dropped when `decisions` is
    given; maybe none."""
    store = ClipStore.open(synthetic / "clips.zarr")
    kept = accepted(store.ids, read_table(decisions / "decisions.parquet", Decision) if decisions else [])
    return Described(store.subset(kept), read_table(synthetic / "provenance.parquet", ProvenanceRecord))


def phases(arm: ArmParams, real: ClipSource | None, fake: ClipSource | None,
           train: TrainParams) -> list[tuple[str, Sources, TrainParams]]:
    """(name, sources with their shares of a batch, training) of each phase; the steps of all add up to `train.steps`.

    Finetuned: the first half on synthetic clips, the rest on real ones, each with its own warm-up and decay.
    """
    if arm.schedule == "finetuned" and real is not None and fake is not None:
        first = train.steps // 2
        if first == 0:
            raise ValueError(f"train.steps: {train.steps} cannot be divided in two phases; give finetuned arms at least 2")
        halves = (first, train.steps - first)
        return [(name, [(source, 1.0)], train.model_copy(update={"steps": steps}))
                for name, source, steps in zip(("synthetic", "real"), (fake, real), halves, strict=True)]
    if real is not None and fake is not None:
        return [("", [(real, 1 - arm.synthetic_share), (fake, arm.synthetic_share)], train)]
    return [("", [(source, 1.0) for source in (real, fake) if source is not None], train)]


def draw(sources: Sources, batch: int, rng: torch.Generator) -> Iterator[ClipBatch]:
    """One batch: each clip picks its source by the shares, then any clip of it; the clips of each source together."""
    picks = torch.multinomial(torch.tensor([share for _, share in sources]), batch, replacement=True, generator=rng)
    places = torch.rand(batch, generator=rng)
    for number, (source, _) in enumerate(sources):
        if bool((picks == number).any()):
            yield source.read((places[picks == number] * len(source)).long().tolist())
