"""NIfTI volumes with masks of the same name: slices become frames."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from pydantic import Field

from tasks.patients import PatientParams, patient_lookup
from tasks.readers import QuarantinedError, Source, Volume, cannot

MAX_VOXELS = 2**29
DEFLATE = 1032
"""Bytes that one byte of a gzip file can become at most."""


class Params(PatientParams):
    """Folders relative to the data set's location."""

    images: str = "images"
    masks: str | None = Field("labels", description="folder of masks with the images' names; null: no masks")
    axis: int = Field(2, ge=0, le=2, description="the axis whose slices are frames")


def sources(location: Path, params: Params) -> list[Source]:
    folder = location / params.images
    look_up = patient_lookup(location, params)
    found = []
    for image in sorted(file for file in folder.glob("*") if file.name.endswith((".nii", ".nii.gz")) and file.name[0] != "."):
        name = str(image.relative_to(location))
        mask = location / params.masks / image.name if params.masks else None
        known = look_up(name)
        files = (image, mask) if mask is not None and mask.exists() else (image,)
        found.append(Source(name, files, known.patient, known.label, partial(read, image, mask, params.axis), known.text,
                            site=known.site))
    return found


def read(image: Path, mask: Path | None, axis: int) -> Volume:
    """A volume whose slices along `axis` are frames (F, H, W, 1), with the masks (F, H, W) of the file `mask` if one is given.

    Raises:
        QuarantinedError: if the image is not three-dimensional, or either file is missing, broken or unfit.
    """
    voxels = load(image)
    if voxels.ndim != 3:
        raise QuarantinedError(f"has {voxels.ndim} dimensions, but a volume has 3")
    if mask is None:
        return Volume(planes(voxels, axis)[..., None])
    labels = load_labels(mask, voxels.shape)
    volume = float((labels > 0).sum() * np.prod(voxel_size(mask)))
    return Volume(planes(voxels, axis)[..., None], planes(labels, axis), mask_volume=volume)


def voxel_size(path: Path) -> tuple[float, ...]:
    """Millimetres along each axis, as the header says."""
    zooms: tuple[float, ...] = nibabel.load(path).header.get_zooms()[:3]  # type: ignore[attr-defined]
    return zooms


def load(path: Path) -> NDArray[np.float32]:
    """The scaled voxels as stored, (X, Y, Z) or (X, Y, Z, T).

    Raises:
        QuarantinedError: if they cannot be decoded, or the header declares more than MAX_VOXELS.
    """
    try:
        image = nibabel.load(path)
        size = math.prod(image.shape)  # type: ignore[attr-defined]
        if size > MAX_VOXELS:
            raise QuarantinedError(f"declares {size} voxels, more than {MAX_VOXELS}")
        declared = image.dataobj.offset + size * image.dataobj.dtype.itemsize  # type: ignore[attr-defined]
        holds = path.stat().st_size * (DEFLATE if path.suffix == ".gz" else 1)
        if declared > holds:
            raise QuarantinedError(f"declares {declared} bytes, but holds {holds} at most")
        return np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    except (ImageFileError, OSError, EOFError, ValueError, ArithmeticError) as error:
        if isinstance(error, QuarantinedError):
            raise
        raise cannot("be read", error) from None


def load_labels(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map of an image of this shape, 0..254.

    Raises:
        QuarantinedError: if there is none, it cannot be decoded, has another shape or values that are not labels.
    """
    if not path.exists():
        raise QuarantinedError("has no mask")
    labels = load(path)
    if labels.shape != shape:
        raise QuarantinedError(f"mask is {labels.shape}, image is {shape}")
    rounded = labels.round()
    if labels.size and (not np.array_equal(rounded, labels) or labels.min() < 0 or labels.max() > 254):
        raise QuarantinedError("mask has values that are not labels 0..254")
    return rounded.astype(np.uint8)


def planes(voxels: NDArray[Any], axis: int) -> NDArray[Any]:
    """(X, Y, Z) -> (F, H, W) with the second remaining axis upwards, as radiologists look at it."""
    moved = np.moveaxis(voxels, axis, 0).transpose(0, 2, 1)
    return np.ascontiguousarray(moved[:, ::-1])
