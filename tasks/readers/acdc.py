"""ACDC, cardiac cine MRI of 150 patients in five groups, as its owners publish it.

`training/patient001/` (and `testing/patient101/`) holds `Info.cfg` with lines like `Group: DCM`, `ED: 1`, `ES: 12`,
`patient001_4d.nii.gz` (X, Y, Z, T), and for the frames at end-diastole and end-systole `patient001_frame01.nii.gz` (X, Y, Z)
and `patient001_frame01_gt.nii.gz` (1 right ventricle, 2 myocardium, 3 left ventricle). Bernard et al., IEEE TMI 2018;
https://www.creatis.insa-lyon.fr/Challenge/acdc/

Ctrl-GenAug's clips are eight consecutive slices of the ED and ES volumes, clipped to percentiles 0.5 to 99.5 and padded to a
square: `clip_frames: 8`, and the defaults of `window` and `fit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.unknown import UNKNOWN
from tasks.readers import QuarantinedError, Source, Volume, nifti

Group = Literal["NOR", "MINF", "DCM", "HCM", "RV"]
Phase = Literal["ED", "ES"]
PHASES: tuple[Phase, ...] = ("ED", "ES")


class Params(BaseModel):
    """The label is Info.cfg's Group."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[Literal["training", "testing"], ...] = ("training", "testing")
    clip: Literal["slices", "cine"] = Field("slices", description="a clip: the slices of a phase, or the beat of one slice")
    phases: tuple[Phase, ...] = Field(PHASES, description="slices: of which phases, each a source of its own")
    slice: int | None = Field(None, ge=0, description="cine: which slice, from 0; null: the middle one")
    masks: bool = Field(True, description="with the owners' masks where there are any; of a cine, two frames have them")
    classes: dict[Group, str] = Field(default_factory=dict, description="merges or renames groups; others stay")


def sources(location: Path, params: Params) -> list[Source]:
    """`location` holds the folders training and testing; one source a patient and phase, or one a patient (cine)."""
    configs = [file for part in params.parts for file in location.glob(f"{part}/patient*/Info.cfg")]
    return sorted((one for file in configs for one in _patient(location, file, params)), key=lambda source: source.name)


def _patient(location: Path, config: Path, params: Params) -> Iterator[Source]:
    folder, facts = config.parent, _facts(config)
    stem, group = folder.name, facts.get("Group")
    label = None if group is None else {str(key): name for key, name in params.classes.items()}.get(group, group)
    numbers = {phase: int(facts[phase]) for phase in PHASES if facts.get(phase, "").isdigit()}
    truths = {phase: folder / f"{stem}_frame{number:02d}_gt.nii.gz" for phase, number in numbers.items() if params.masks}
    truths = {phase: file for phase, file in truths.items() if file.exists()}

    def source(what: str, files: Iterable[Path], read: partial[Volume]) -> Source:
        existing = (config, *(file for file in files if file.exists()))
        return Source(f"{folder.relative_to(location)}/{what}", existing, stem, label, read)

    if params.clip == "cine":
        video = folder / f"{stem}_4d.nii.gz"
        frames = {numbers[phase] - 1: file for phase, file in truths.items()}
        yield source("cine", (video, *truths.values()), partial(_cine, video, frames, params.slice))
        return
    for phase in params.phases:
        image, mask = folder / f"{stem}_frame{numbers.get(phase, 0):02d}.nii.gz", truths.get(phase)
        read = partial(_slices, image, mask, None if phase in numbers else f"has no frame of {phase} in Info.cfg")
        yield source(phase, (image, mask) if mask else (image,), read)


def _facts(config: Path) -> dict[str, str]:
    with config.open(errors="replace") as opened:
        lines = [line.partition(":") for line in opened.read(2**16).splitlines()]
    return {key.strip(): value.strip() for key, colon, value in lines if colon}


def _slices(image: Path, mask: Path | None, unusable: str | None) -> Volume:
    """Slices in the order of the file as frames (Z, Y, X, 1), with masks (Z, Y, X) of 0..3 if there are any."""
    if unusable is not None:
        raise QuarantinedError(unusable)
    _check(image)
    return nifti.read(image, mask, axis=2)


def _cine(image: Path, truths: Mapping[int, Path], chosen: int | None) -> Volume:
    """One slice through the beat, frames (T, Y, X, 1); masks are UNKNOWN but on the frames that `truths` numbers, from 0."""
    _check(image)
    voxels = nifti.load(image)
    if voxels.ndim != 4:
        raise QuarantinedError(f"has {voxels.ndim} dimensions, but a cine has 4")
    depth, length = voxels.shape[2:]
    number = depth // 2 if chosen is None else chosen
    if number >= depth:
        raise QuarantinedError(f"has no slice {number}, only {depth}")
    video = voxels[:, :, number]
    labels = np.full(video.shape, UNKNOWN, np.uint8)
    for frame, file in truths.items():
        if not 0 <= frame < length:
            raise QuarantinedError(f"has {length} frames, but Info.cfg names frame {frame + 1}")
        labels[..., frame] = nifti.load_labels(file, voxels.shape[:3])[:, :, number]
    return Volume(nifti.planes(video, 2)[..., None], nifti.planes(labels, 2) if truths else None)


def _check(image: Path) -> None:
    if not image.exists():
        raise QuarantinedError("lacks a file that Info.cfg speaks of")
