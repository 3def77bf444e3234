"""Stanford Thyroid Ultrasound Cine-clip, 192 nodules of 167 patients, as its owners publish it.

`dataset.hdf5` has `image` and `mask` (N, H, W) uint8, masks 0 and 255, and of each frame `annot_id` and `frame_num` as text;
`metadata.csv` has a row a nodule: annot_id, age, sex, location, size_x/y/z, ti-rads_composition, -_echogenicity, -_shape,
-_margin, -_echogenicfoci (points of ACR TI-RADS), ti-rads_level, histopath_diagnosis.
https://stanfordaimi.azurewebsites.net/datasets/a72f2b02-7b53-4c5d-963c-d7253220bfd5

The owners give no patient: annot_id numbers nodules (`8_`). Nodules of one person must not be dealt to two splits, so by
default all of one age and sex count as one patient: fewer than there are, but none in two splits unless scanned at two ages.
"""

from __future__ import annotations

import csv
import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasks.pseudonyms import pseudonym
from tasks.readers import QuarantinedError, Source, Volume, cannot
from tasks.ti_rads import COLUMNS, sentence

MAX_VALUES = 2**29


class Params(BaseModel):
    """The label is a column's value by `classes`; nodules of other values are not used, as TI-RADS 1 in the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_column: str = "ti-rads_level"
    classes: dict[str, str] = Field({"2": "TR2-3", "3": "TR2-3", "4": "TR4", "5": "TR5"}, description="value -> class")
    patient_columns: tuple[str, ...] = Field(("age", "sex"), description="alike in these: one patient; []: annot_id's prefix")
    masks: bool = True

    @property
    def by_hash(self) -> bool:
        """Whether patients are named by a keyed hash, for which the site's key is needed."""
        return bool(self.patient_columns)


def sources(location: Path, params: Params) -> list[Source]:
    """`location` holds dataset.hdf5 and metadata.csv; one source a nodule. The HDF5 file stays closed.

    A source's identity is its row and the HDF5 file's size: to hash 36 GB for each of 192 nodules would take hours.

    Raises:
        ValueError: if a file or column is missing, or h5py is not installed.
    """
    table, data = location / "metadata.csv", location / "dataset.hdf5"
    absent = [file for file in (table, data) if not file.is_file()]
    if len(absent) == 1:
        raise ValueError(f"dataset.location: {absent[0]} does not exist")
    if absent:
        return []
    _h5py()  # one error for all nodules, instead of one quarantine each
    with table.open(newline="", encoding="utf-8-sig") as opened:
        rows = [{key: _plain(value) for key, value in row.items() if key} for row in csv.DictReader(opened)]
    wanted = ["annot_id", params.label_column, *params.patient_columns, *COLUMNS]
    if rows and (missing := [column for column in wanted if column not in rows[0]]):
        raise ValueError(f"{table}: has no column {', '.join(missing)}; it has {', '.join(rows[0])}")
    return sorted((_source(data, row, params) for row in rows), key=lambda source: source.name)


def _source(data: Path, row: dict[str, str], params: Params) -> Source:
    nodule, value = row["annot_id"].rstrip("_"), row[params.label_column]
    known = [row[column] for column in params.patient_columns]
    label = params.classes.get(value)
    unused = "" if label else f"has no class: {params.label_column} is {value or 'not given'}"
    unused = unused or ("" if all(known) else f"has no {' or '.join(params.patient_columns)} to tell its patient by")
    patient = pseudonym(json.dumps(known)) if known else nodule.split("_")[0]
    read = partial(_read, data, nodule, params.masks, unused)
    return Source(f"dataset.hdf5/{nodule}", (), patient, label, read, sentence(row), json.dumps([data.stat().st_size, row]))


def _plain(value: str | None) -> str:
    """A column with gaps holds 4.0 for 4."""
    return (value or "").strip().removesuffix(".0")


def _read(data: Path, nodule: str, masked: bool, unused: str) -> Volume:
    """The longest run of frames without a gap (F, H, W, 1), by frame_num; masks (F, H, W) 0 and 1.

    Raises:
        QuarantinedError: if the nodule has no class or no frames, or the file is broken, too large or laid out otherwise.
    """
    if unused:
        raise QuarantinedError(unused)
    try:
        with _h5py().File(data, "r") as file:
            for name in ("annot_id", "frame_num", "image", "mask"):
                here = isinstance(file.get(name, getlink=True), _h5py().HardLink | None)
                if not here or (name in file and (file[name].external or file[name].is_virtual)):
                    raise QuarantinedError(f"keeps its {name} elsewhere than in itself")
            owners = [bytes(owner).decode().strip().rstrip("_") for owner in file["annot_id"][:]]
            places = [place for place, owner in enumerate(owners) if owner == nodule]
            times = {int(file["frame_num"][place]): place for place in places}
            if not times:
                raise QuarantinedError("has no frames in dataset.hdf5")
            rows, images, masks = [times[time] for time in _run(sorted(times))], file["image"], file["mask"]
            if images.ndim != 3 or masks.shape != images.shape:
                raise QuarantinedError(f"images are {images.shape}, masks are {masks.shape}, but both ought to be (N, H, W)")
            if (size := len(rows) * images.shape[1] * images.shape[2]) > MAX_VALUES:
                raise QuarantinedError(f"declares {size} values, more than {MAX_VALUES}")
            frames = np.stack([images[row] for row in rows])[..., None]
            return Volume(frames, np.stack([masks[row] > 128 for row in rows]).astype(np.uint8) if masked else None)
    except (OSError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, QuarantinedError):
            raise
        raise cannot("be read", error) from None


def _run(times: list[int]) -> list[int]:
    """The longest stretch of consecutive numbers, the first of equals: a jump in time is no motion."""
    cuts = [0, *(place for place, (now, then) in enumerate(pairwise(times), 1) if then != now + 1), len(times)]
    return max((times[first:last] for first, last in pairwise(cuts)), key=len)


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError("dataset.reader: tusc reads HDF5 with h5py; install it with pip install 'cinefab[hdf5]'") from None
    return h5py
