"""Multi-frame DICOM (ultrasound, X-ray angiography) through pydicom, with Pillow's decoders for compressed pixels."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydantic import Field
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale, pixel_array

from tasks.patients import PatientParams, patient_lookup
from tasks.readers import Quarantined, Source, Volume


class Params(PatientParams):
    """Without a table or pattern the patient is a hash of the header's PatientID; the ID itself never leaves the file."""

    folder: str = Field(".", description="relative to the data set's location; searched in depth, any suffix")
    color: bool = False
    max_values: int = Field(2**30, gt=0, description="frames x rows x columns x samples a file may declare")


def sources(location: Path, params: Params) -> list[Source]:
    own = params.table is not None or params.patient_pattern is not None
    look_up = patient_lookup(location, params)
    found = []
    for file in sorted((location / params.folder).rglob("*")):
        if not file.is_file() or file.name == "DICOMDIR" or file.name.startswith("."):
            continue
        if params.table is not None and file == location / params.table:
            continue
        name = str(file.relative_to(location))
        patient, label = (look_up(name) or ("", None)) if own else (_patient(file), None)
        found.append(Source(name, (file,), patient, label, partial(_read, file, params)))
    return found


def _patient(file: Path) -> str:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
    except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError, KeyError, NotImplementedError):
        return file.name  # reading it will say what is wrong
    identity = str(header.get("PatientID", "")).strip()
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest() if identity else file.name


def _read(file: Path, params: Params) -> Volume:
    try:
        header = pydicom.dcmread(file)
        if "PixelData" not in header:
            raise Quarantined("has no pixels")
        count = int(header.get("NumberOfFrames") or 1)
        size = count * int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel)
        if size > params.max_values or size <= 0:
            raise Quarantined(f"declares {size} values")
        pixels = pixel_array(header)  # YBR comes out as RGB
    except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError, RuntimeError, NotImplementedError, KeyError, TypeError) as error:
        if isinstance(error, Quarantined):
            raise
        raise Quarantined(f"cannot be decoded: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    colour = int(header.SamplesPerPixel) > 1
    video = pixels if count > 1 else pixels[None]
    if colour:
        return Volume(video if params.color else _grey(video), None, frame_time(header))
    return Volume(_monochrome(video, header)[..., None], None, frame_time(header))


def _grey(video: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ITU-R 601 luma of RGB frames, (F, H, W, 1)."""
    return (video.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _monochrome(video: NDArray[np.generic], header: FileDataset) -> NDArray[np.float32]:
    """Rescaled values, larger brighter; palette colours become their grey."""
    interpretation = str(header.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        colours = apply_color_lut(video, header).astype(np.float32)
        return _grey(colours)[..., 0]  # type: ignore[arg-type]
    values = apply_rescale(video, header).astype(np.float32)
    return values.max() - values if interpretation == "MONOCHROME1" else values


def frame_time(header: FileDataset) -> float | None:
    """Milliseconds between frames, from FrameTime, FrameTimeVector or CineRate, whichever the file has first."""
    if header.get("FrameTime"):
        return float(header.FrameTime)
    if (vector := header.get("FrameTimeVector")) is not None and len(np.atleast_1d(vector)) > 1:
        return float(np.mean([float(one) for one in vector[1:]]))
    return 1000 / float(header.CineRate) if header.get("CineRate") else None
