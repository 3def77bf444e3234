"""Multi-frame DICOM (ultrasound, X-ray angiography) through pydicom, with Pillow's decoders for compressed pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydantic import Field
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

from tasks.patients import Known, PatientParams, hashed, patient_lookup
from tasks.readers import QuarantinedError, Source, Volume, leads_out
from tasks.readers.images import by_frame, mask_pictures

_UNREADABLE = (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError, TypeError, RuntimeError)
"""What pydicom and its decoders raise for files that are no DICOM, truncated, or compressed in a way nobody here decodes."""


class Params(PatientParams):
    """Without a table or pattern the patient is a hash of the header's PatientID; the ID itself never leaves the file.

    Mask pictures are named by their frame's number, as for videos.
    """

    folder: str = Field(".", description="relative to the data set's location; searched in depth, any suffix")
    masks: str | None = Field(None, description="folder with one folder of pictures a file, named as the file without suffix")
    color: bool = False
    max_values: int = Field(2**29, gt=0, description="frames x rows x columns x samples a file may declare")


def sources(location: Path, params: Params) -> list[Source]:
    own = params.table is not None or params.patient_pattern is not None
    look_up = patient_lookup(location, params)
    found = []
    for file in sorted((location / params.folder).rglob("*")):
        if not file.is_file() or file.name == "DICOMDIR" or file.name.startswith("."):
            continue
        if params.table is not None and file == location / params.table:
            continue
        if params.masks is not None and file.is_relative_to(location / params.masks):
            continue
        name = str(file.relative_to(location))
        known = look_up(name) if own else Known(hashed(name) if leads_out(file, location) else _patient(file))
        pictures = sorted((location / params.masks / file.stem).glob("*")) if params.masks else []
        found.append(Source(name, (file, *pictures), known.patient, known.label, partial(_read, file, pictures, params),
                            known.text, site=known.site))
    return found


def _patient(file: Path) -> str:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
        identity = str(header.get("PatientID") or "").strip()
    except Exception:  # reading it will say what is wrong
        identity = ""
    return hashed(identity or file.name)


def _read(file: Path, pictures: list[Path], params: Params) -> Volume:
    try:
        header = pydicom.dcmread(file)
        if "PixelData" not in header:
            raise QuarantinedError("has no pixels")
        count = int(header.get("NumberOfFrames") or 1)
        size = count * int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel)
        if size > params.max_values or size <= 0:
            raise QuarantinedError(f"declares {size} values")
        pixels = pixel_array(header)  # YBR comes out as RGB
    except _UNREADABLE as error:
        if isinstance(error, QuarantinedError):
            raise
        raise QuarantinedError(f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}") from None
    colour = int(header.SamplesPerPixel) > 1
    video = pixels if count > 1 else pixels[None]
    masks = mask_pictures(by_frame(pictures, len(video)), video.shape[:3]) if pictures else None
    if not colour:
        grey = _monochrome(video, header)[..., None]
        return Volume(np.repeat(grey, 3, -1) if params.color else grey, masks, frame_time(header))
    return Volume(video if params.color else _grey(video), masks, frame_time(header))


def _grey(video: NDArray[Any]) -> NDArray[np.float32]:
    """ITU-R 601 luma of RGB frames, (F, H, W, 1)."""
    return (video.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _monochrome(video: NDArray[Any], header: FileDataset) -> NDArray[Any]:
    """(F, H, W) rescaled values, larger brighter; palette colours become their grey."""
    interpretation = str(header.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        return _grey(apply_color_lut(video, header))[..., 0]
    values = apply_rescale(video, header)
    return values.max() - values.astype(np.float32) if interpretation == "MONOCHROME1" else values


def frame_time(header: FileDataset) -> float | None:
    """Milliseconds between frames, from FrameTime, FrameTimeVector or CineRate, whichever the file has first."""
    if header.get("FrameTime"):
        return float(header.FrameTime)
    if (vector := header.get("FrameTimeVector")) is not None and len(np.atleast_1d(vector)) > 1:
        return float(np.mean([float(one) for one in vector[1:]]))
    return 1000 / float(header.CineRate) if header.get("CineRate") else None
