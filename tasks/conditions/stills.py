"""Single images to be animated (image-to-video): a condition is one still, stored as a clip that shows nothing else.

Stills are frames of training clips, or the images of a `folder` beside the data set, each with a label and a patient as a
table or a pattern over its relative name says (`tasks.patients`; images are found and decoded by `tasks.readers.images`). They
are scaled and resized as `prepare` did the clips. An image that cannot be used is left out, and `quarantine.parquet`
says why, under the sha256 of its bytes.

What could leak from a folder, and what is done about it:

- A person of the test or validation split is in it under the same name: the run stops, and so does a release made from a bank
  that an older split allowed. Patients of a folder are recorded as `outside:FOLDER:NAME`, which only this module writes; a
  release and a benchmark look NAME up among the held-out patients again.
- Such a person is in it under another name: names cannot tell. An image as like a frame of a held-out clip as `near_duplicate`
  allows is left out. Measured on 780 breast ultrasound images, stretched to 64 x 64: the likest other image is below 0.6 for
  444 and above 0.95 for 299; the three pairs of the latter that were looked at are the same view twice. Another view of the
  same person is found by neither; whoever gives the folder vouches for that.
- A generator trained on the folder: none is, it reads the training split alone.

DVC does not watch the folder, since a dependency of dvc.yaml cannot depend on `kind`. Either add `"${conditions.folder}"` to
the deps of the stage `condition` there, or say `dvc repro --force --single-item condition` after the images changed. The bank
itself is never stale: its fingerprint holds the pixels, labels and texts of its stills, so that equal ones change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from models.clip import UNKNOWN
from tasks.conditions import Bank
from tasks.conditions.clips import in_turn
from tasks.decoder import decoded
from tasks.params import DecoderParams
from tasks.patients import PatientParams, outside_patient
from tasks.readers import QuarantinedError, Source, images
from tasks.records import ClipRecord, ConditionRecord, QuarantineRecord
from tasks.split import thumbnails
from tasks.store import ClipStore, clip_digest
from tasks.tables import read_json, read_table
from tasks.windows import Pixels, check_volume, resize, scale


class Params(PatientParams):
    """All but `count`, `labelled_only` and `frames` describe the folder, as a reader's options do a data set."""

    count: int = Field(gt=0, description="at most every still once; classes get equal shares as far as their stills go")
    labelled_only: bool = Field(True, description="leave out stills without a class")
    frames: int = Field(1, gt=0, description="stills of a training clip, evenly from its first frame on")
    folder: Path | None = Field(None, description="single images; None: frames of the training clips")
    images: str = Field(".", description="where in the folder they are, at any depth")
    mask_suffix: str = Field("", description="images whose name ends so, before the dot, are masks and no stills, e.g. _mask")
    near_duplicate: float = Field(0.95, gt=0, le=1, description="correlation with a frame of a held-out clip from which on an "
                                  "image is left out")

    @model_validator(mode="after")
    def _fits_its_source(self) -> Params:
        alone = self.model_fields_set - {"count", "labelled_only", "frames", "folder"}
        if self.folder is None and alone:
            raise ValueError(f"{', '.join(sorted(alone))}: describes a folder of images; give folder, or take it out")
        if self.folder is not None and "frames" in self.model_fields_set:
            raise ValueError("frames: counts those of a training clip; take it out, or folder")
        return self


@dataclass(frozen=True)
class _Still:
    """One image, not yet decoded; `load` gives it as (H, W, C) or raises QuarantinedError."""

    name: str  # a clip's frame, or for an image what `cinefab source` finds it by
    patient: str
    clips: list[str]
    label: str | None
    text: str
    load: Callable[[], Pixels]


def bank(params: Params, seed: int, prepared: Path) -> Bank:
    """Stills of each class in an order drawn by the seed, classes in turn, until `count` or all are taken.

    A condition's id hashes pixels (H, W, C; uint8), label and text; neither it nor the order knows a file's name. "frames" is
    the still T times, "masks" all UNKNOWN.

    Raises:
        ValueError: if no still is usable, `frames` is more than a clip has, the folder or its table is missing, or an image is
            of a test or validation patient or changes while it is read.
    """
    clips = ClipStore.open(prepared / "clips.zarr")
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    if params.folder is None:
        listed = _of_clips(clips, records, params)
        refuse: Callable[[Pixels], None] = _refuse_nothing
    else:
        listed = _of_folder(params.folder, params, clips, records, prepared)
        refuse = partial(_refuse_like, _held_out(clips, records), params.near_duplicate)
    found, refused = _survey(listed, refuse)
    if not found:
        where = "frames of training clips" if params.folder is None else f"images in {params.folder}"
        first = refused[0]
        raise ValueError(f"conditions: none of the {len(listed)} {where} is usable, e.g. {first.file} {first.reason}; give "
                         "others, or correct table, patient_pattern, label_column or labelled_only")
    ids = sorted(found)  # by content: a renamed file changes nothing
    order = in_turn({number: found[one].label or "" for number, one in enumerate(ids)}, seed)
    chosen = [ids[number] for number in order[: params.count]]

    def make(numbers: Sequence[int]) -> tuple[list[ConditionRecord], dict[str, NDArray[Any]]]:
        taken = [chosen[number] for number in numbers]
        rows = [ConditionRecord(one, [still.patient], still.clips, still.label, still.text)
                for one, still in ((one, found[one]) for one in taken)]
        frames = np.stack([_again(one, found[one]) for one in taken])  # (N, H, W, C)
        masks = np.full((len(taken), *clips.arrays["masks"].shape), UNKNOWN, np.uint8)  # nobody annotated what will be sampled
        return rows, {"frames": np.repeat(frames[:, None], masks.shape[1], axis=1), "masks": masks}

    arrays = {name: clips.arrays[name] for name in ("frames", "masks")}
    return Bank(len(chosen), arrays, make, tuple(chosen), tuple(refused))


def _of_clips(clips: ClipStore, records: Sequence[ClipRecord], params: Params) -> list[_Still]:
    length = clips.arrays["frames"].shape[0]
    if params.frames > length:
        raise ValueError(f"conditions.frames: {params.frames} is more than the {length} frames of a clip")
    rows = [row for row, record in enumerate(records) if record.split == "train" and (record.label or not params.labelled_only)]
    if not rows:
        raise ValueError("conditions: no training clip has a label; give dataset.options.label_column, or labelled_only: false")
    places = [length * number // params.frames for number in range(params.frames)]
    return [
        _Still(f"clip {one.clip_id} frame {place}", one.patient, [one.clip_id], one.label, one.text,
               partial(_frame, clips, row, place))
        for row, one in ((row, records[row]) for row in rows) for place in places
    ]


def _frame(clips: ClipStore, row: int, place: int) -> Pixels:
    frame: Pixels = clips.load([row])["frames"][0, place]
    if frame.min() == frame.max():
        raise QuarantinedError("is constant: every pixel has the same value")
    return frame


def _of_folder(folder: Path, params: Params, clips: ClipStore, records: Sequence[ClipRecord], prepared: Path) -> list[_Still]:
    """Every image of the folder, none of them of a held-out patient."""
    if not folder.is_dir():
        raise ValueError(f"conditions.folder: {folder} is no folder; give the one that holds the images")
    _, height, width, channels = clips.arrays["frames"].shape
    shared = {name: getattr(params, name) for name in (*PatientParams.model_fields, "images", "mask_suffix")}
    options = images.Params(**shared, stills=True, color=channels == 3)
    sources = decoded("images", folder, options, DecoderParams())
    if not sources:
        kinds = ", ".join(sorted(images.SUFFIXES))
        raise ValueError(f"conditions.folder: {folder / params.images} holds no image ({kinds}); give the folder that does, or "
                         "another mask_suffix")
    split = {record.patient: record.split for record in records if record.split != "train"}
    for source in sources:
        if source.patient in split:
            name = source.found_by(source.outside(folder) is None)
            raise ValueError(f"leak: {name[:16]} in {folder} is of patient {source.patient!r}, who is in the "
                             f"{split[source.patient]} split; take that patient's images out, or name another person of that "
                             "name differently")
    done = read_json(prepared / "summary.json").get("scaling")
    if done is None:
        raise ValueError(f"{prepared}: does not say how its clips were scaled; run `cinefab prepare` again")
    load = partial(_image, folder=folder, labelled_only=params.labelled_only, size=(height, width),
                   window=tuple(done["window"]), fit=done["fit"])
    collection = folder.resolve().name
    return [_Still(one.found_by(one.outside(folder) is None), outside_patient(collection, one.patient), [], one.label, one.text,
                   partial(load, one))
            for one in sources]


def _image(source: Source, folder: Path, labelled_only: bool, size: tuple[int, int], window: tuple[float, float],
           fit: Any) -> Pixels:
    if (reason := source.outside(folder)) is not None:
        raise QuarantinedError(reason)
    if not source.patient:
        raise QuarantinedError("has no patient in the table or by patient_pattern")
    if labelled_only and not source.label:
        raise QuarantinedError("has no label, and labelled_only is true")
    volume = source.read()
    check_volume(volume, 0)
    if volume.frames.min() == volume.frames.max():
        raise QuarantinedError("is constant: every pixel has the same value")
    masks = np.full(volume.frames.shape[:3], UNKNOWN, np.uint8)
    return resize(scale(volume.frames, window), masks, size, fit)[0][0]


def _survey(listed: Sequence[_Still],
            refuse: Callable[[Pixels], None]) -> tuple[dict[str, _Still], list[QuarantineRecord]]:
    """Usable stills by condition id, of equal pixels the first, and why the others are not. Pixels are not kept."""
    found: dict[str, _Still] = {}
    refused: list[QuarantineRecord] = []
    owner: dict[str, _Still] = {}
    for still in listed:
        try:
            pixels = still.load()
            refuse(pixels)
            if (first := owner.setdefault(clip_digest({"still": pixels}), still)) is not still:
                raise QuarantinedError(f"repeats the pixels of {first.name}")
        except QuarantinedError as error:
            refused.append(QuarantineRecord(still.name, str(error)))
            continue
        found[_condition_id(pixels, still)] = still
    return found, refused


def _condition_id(pixels: Pixels, still: _Still) -> str:
    words = f"still:{clip_digest({'still': pixels})}:{still.label}:{still.text}"
    return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()


def _again(condition_id: str, still: _Still) -> Pixels:
    """Decoded a second time, so that memory does not grow with the folder."""
    pixels = still.load()
    if _condition_id(pixels, still) != condition_id:
        raise ValueError(f"{still.name}: changed while it was read; run `cinefab condition` again")
    return pixels


def _refuse_nothing(pixels: Pixels) -> None:
    pass


def _held_out(clips: ClipStore, records: Sequence[ClipRecord]) -> NDArray[np.float16]:
    """(N, D): thumbnails of every frame of the test and validation clips."""
    def views() -> Iterator[NDArray[np.float16]]:
        for row, record in enumerate(records):
            if record.split != "train":
                yield from (thumbnails(frame[None])[0] for frame in clips.load([row])["frames"][0])

    return np.stack(found) if (found := list(views())) else np.zeros((0, 1), np.float16)


def _refuse_like(held_out: NDArray[np.float16], threshold: float, pixels: Pixels, block: int = 4096) -> None:
    own = thumbnails(pixels[None]).astype(np.float32)  # (7, D): also shifted by a pixel
    for start in range(0, len(held_out), block):
        if (likest := float((held_out[start : start + block].astype(np.float32) @ own.T).max())) >= threshold:
            raise QuarantinedError(f"looks like a frame of a held-out clip: correlation {likest:.2f}")
