"""MRNet v1.0, knee MRI of Stanford, as its owners publish it.

`train/sagittal/0000.npy` (slices, 256, 256) uint8, likewise `axial` and `coronal`, and `valid/...`; beside them
`train-abnormal.csv`, `train-acl.csv`, `train-meniscus.csv` and `valid-...`, without header, lines like `0000,1`. Bien et al.,
PLoS Medicine 2018; https://stanfordmlgroup.github.io/competitions/mrnet/

An exam counts as a patient, since the owners do not say which of their exams are of one person: a few persons may be in two
splits. Ctrl-GenAug takes `task: acl`, `plane: sagittal`.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasks.readers import QuarantinedError, Source, Volume, cannot

MAX_VALUES = 2**29


class Params(BaseModel):
    """The label is the task's column: "1" (torn, abnormal) or "0"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["abnormal", "acl", "meniscus"] = "acl"
    plane: Literal["axial", "coronal", "sagittal"] = "sagittal"
    parts: tuple[Literal["train", "valid"], ...] = ("train", "valid")
    classes: dict[Literal["0", "1"], str] = Field(default_factory=dict, description="names for the labels, e.g. {'1': tear}")


def sources(location: Path, params: Params) -> list[Source]:
    """`location` holds train, valid and the tables; one source an exam, its slices the frames.

    Raises:
        ValueError: if a part has exams but the task has no table for it.
    """
    found: list[Source] = []
    names = {str(key): name for key, name in params.classes.items()}
    for part in params.parts:
        exams = sorted((location / part / params.plane).glob("*.npy"))
        table = location / f"{part}-{params.task}.csv"
        labels = _labels(table) if exams else {}
        for exam in exams:
            label = labels.get(exam.stem)
            name = names.get(label, label) if label else None
            read = partial(_read, exam, None if label else table.name)
            found.append(Source(str(exam.relative_to(location)), (exam,), exam.stem, name, read))
    return sorted(found, key=lambda source: source.name)


def _labels(table: Path) -> dict[str, str]:
    if not table.is_file():
        raise ValueError(f"dataset.location: {table} does not exist; MRNet's labels are in it")
    with table.open(newline="") as file:
        return {row[0].strip(): row[1].strip() for row in csv.reader(file) if len(row) == 2 and row[1].strip() in ("0", "1")}


def _read(exam: Path, missing: str | None) -> Volume:
    """Slices as frames (F, 256, 256, 1). `missing`: the table that ought to list the exam and does not."""
    if missing is not None:
        raise QuarantinedError(f"is not in {missing}")
    try:
        volume = np.load(exam, mmap_mode="r", allow_pickle=False)  # mapped: its header is judged before anything is read
        if not isinstance(volume, np.ndarray) or volume.dtype.kind not in "uif":
            raise QuarantinedError("is not an array of numbers")
        if volume.size > MAX_VALUES:
            raise QuarantinedError(f"declares {volume.size} values, more than {MAX_VALUES}")
        if volume.ndim != 3:
            raise QuarantinedError(f"has {volume.ndim} dimensions, but an exam has 3")
        return Volume(np.array(volume)[..., None])
    except (OSError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, QuarantinedError):
            raise
        raise cannot("be read", error) from None
