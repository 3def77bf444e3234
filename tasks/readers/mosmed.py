"""MosMedData COVID19_1110, chest CT of 1110 patients in five degrees of COVID-19, as its owners publish it.

`studies/CT-0/study_0001.nii.gz` to `studies/CT-4/...` (X, Y, Z) in Hounsfield units, one study a patient, the folder its label
(CT-0 normal, CT-4 worst); `masks/study_0255_mask.nii.gz` marks ground glass and consolidation (1) in 50 studies of CT-1.
Morozov et al., 2020, arXiv:2005.06465; https://mosmed.ai/datasets/covid19_1110

Ctrl-GenAug's three classes are `classes: {CT-2: CT-234, CT-3: CT-234, CT-4: CT-234}`; its window is the default of
`hounsfield`, to be used with the data set's `window: [0, 100]`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.readers import Source, Volume, nifti

Degree = Literal["CT-0", "CT-1", "CT-2", "CT-3", "CT-4"]


class Params(BaseModel):
    """The label is the study's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: dict[Degree, str] = Field(default_factory=dict, description="merges or renames degrees; others stay")
    hounsfield: tuple[float, float] | None = Field((-1000, 400), description="values are cut off below and above; null: not")
    masks: bool = Field(True, description="with the owners' masks, which 50 studies have; the others count as not annotated")


def sources(location: Path, params: Params) -> list[Source]:
    """`location` holds the folders studies and masks; one source a study, its slices the frames."""
    studies = sorted(file for file in location.glob("studies/CT-[0-4]/study_*") if file.name.endswith((".nii", ".nii.gz")))
    return [_source(location, study, params) for study in studies]


def _source(location: Path, study: Path, params: Params) -> Source:
    patient, dot, suffix = study.name.partition(".")
    mask = location / "masks" / f"{patient}_mask{dot}{suffix}"
    masked = params.masks and mask.exists()
    degree = study.parent.name
    return Source(
        name=str(study.relative_to(location)),
        files=(study, mask) if masked else (study,),
        patient=patient,
        label={str(key): name for key, name in params.classes.items()}.get(degree, degree),
        read=partial(_read, study, mask if masked else None, params.hounsfield),
    )


def _read(study: Path, mask: Path | None, hounsfield: tuple[float, float] | None) -> Volume:
    """Slices in the order of the file as frames (Z, Y, X, 1)."""
    volume = nifti.read(study, mask, axis=2)
    return volume if hounsfield is None else replace(volume, frames=volume.frames.clip(*hounsfield))
