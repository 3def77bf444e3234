"""Whole training clips to ask a generator for more of: class, text, first frame and motion (Ctrl-GenAug).

The released code takes its conditions from the test set, against its own warning; here only training clips are read. Classes
get equal shares, so that a rare one is asked for as often as a common one: that is what synthetic clips are to mend.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.clip import UNKNOWN
from models.seeding import derive_seed
from tasks.conditions import Bank
from tasks.records import ClipRecord, ConditionRecord
from tasks.store import ClipStore
from tasks.tables import read_table


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(gt=0, description="at most every training clip once; classes get equal shares as far as their clips go")
    labelled_only: bool = Field(True, description="leave out clips without a class")


def bank(params: Params, seed: int, prepared: Path) -> Bank:
    """The clips of each class in an order drawn by the seed, classes in turn, until `count` or all are taken.

    Raises:
        ValueError: when the training split has no clip to take.
    """
    clips = ClipStore.open(prepared / "clips.zarr")
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    rows = [row for row, record in enumerate(records) if record.split == "train" and (record.label or not params.labelled_only)]
    if not rows:
        raise ValueError("conditions: no training clip has a label; give dataset.options.label_column, or labelled_only: false")
    chosen = in_turn({row: records[row].label or "" for row in rows}, seed)[: params.count]

    def make(numbers: Sequence[int]) -> tuple[list[ConditionRecord], dict[str, NDArray[Any]]]:
        taken = [chosen[number] for number in numbers]
        arrays = {"frames": clips.load(taken)["frames"]}
        # the sampled clip will not show the masks of its reference: nobody annotated it
        masks = np.full((len(taken), *clips.arrays["masks"].shape), UNKNOWN, np.uint8)
        found = [
            ConditionRecord(hashlib.blake2b(f"clip:{one.clip_id}:{one.label}:{one.text}".encode(), digest_size=16).hexdigest(),
                            [one.patient], [one.clip_id], one.label, one.text)
            for one in (records[row] for row in taken)
        ]
        return found, {**arrays, "masks": masks}

    return Bank(len(chosen), {name: clips.arrays[name] for name in ("frames", "masks")}, make)


def in_turn(classes: dict[int, str], seed: int) -> list[int]:
    """All keys, each class's shuffled by the seed, one of every class in turn; a class that has no more drops out."""
    queues: dict[str, list[int]] = defaultdict(list)
    for row, label in classes.items():
        queues[label].append(row)
    for label, queue in queues.items():
        np.random.default_rng(derive_seed(seed, "bank", label)).shuffle(queue)
    order: list[int] = []
    while len(order) < len(classes):
        order += [queue.pop() for _, queue in sorted(queues.items()) if queue]
    return order
