"""Multi-frame DICOM (ultrasound, X-ray angiography) through pydicom, with Pillow's decoders for compressed pixels.

Of the header only the attributes that `tasks.dicom_header` names are kept, from the moment the file is opened; text that is
burned into pixels is hidden before anybody sees them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydantic import Field
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

from tasks.burned_in import Box, hidden, shown_of
from tasks.dicom_header import quiet, read_kept
from tasks.patients import Known, PatientParams, patient_lookup
from tasks.pseudonyms import pseudonym
from tasks.readers import QuarantinedError, Source, Volume, cannot, leads_out
from tasks.readers.images import by_frame, mask_pictures

MAX_VALUES = 2**29


class Params(PatientParams):
    """Without a table or pattern the patient is a keyed hash of the header's PatientID; the ID itself never leaves the file.

    Pixels outside of the ultrasound regions that a file declares are hidden, those in the boxes of `blank` as well. Without
    `blank`, a file is quarantined that says there is burned-in text but has no region, or whose regions are of other frames.

    Mask pictures are named by their frame's number, as for videos.
    """

    folder: str = Field(".", description="relative to the data set's location; searched in depth, any suffix")
    masks: str | None = Field(None, description="folder with one folder of pictures a file, named as the file without suffix")
    color: bool = False
    max_values: int = Field(MAX_VALUES, gt=0, description="frames x rows x columns x samples a file may declare")
    blank: list[Box] | None = Field(None, description="boxes [x0, y0, x1, y1] of burned-in text in every file; []: somebody "
                                    "has looked, and there is none")


def sources(location: Path, params: Params) -> list[Source]:
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
        by_header = params.by_hash and not leads_out(file, location)
        known = Known(_patient(file, name)) if by_header else look_up(name)
        pictures = sorted((location / params.masks / file.stem).glob("*")) if params.masks else []
        found.append(Source(name, (file, *pictures), known.patient, known.label, partial(_read, file, pictures, params),
                            known.text, site=known.site))
    return found


def _patient(file: Path, name: str) -> str:
    try:
        with quiet():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            identity = str(header.get("PatientID") or "").strip()
    except Exception:  # reading it will say what is wrong
        identity = ""
    return pseudonym(identity or name)


def _read(file: Path, pictures: list[Path], params: Params) -> Volume:
    header, video = read_pixels(file, params.blank, params.max_values)
    masks = mask_pictures(by_frame(pictures, len(video)), video.shape[:3]) if pictures else None
    if video.ndim == 4:
        return Volume(video if params.color else _grey(video), masks, frame_time(header))
    grey = _monochrome(video, header)[..., None]
    return Volume(np.repeat(grey, 3, -1) if params.color else grey, masks, frame_time(header))


def read_pixels(file: Path, blank: list[Box] | None, most: int = MAX_VALUES) -> tuple[FileDataset, NDArray[Any]]:
    """The header as far as it is kept, and the frames: (F, H, W) as stored, or (F, H, W, 3) RGB; burned-in text hidden.

    Raises:
        QuarantinedError: if the file cannot be decoded, declares more than `most` values, or as `tasks.burned_in.shown_of`.
    """
    try:
        with quiet():
            header = read_kept(file)
            if "PixelData" not in header:
                raise QuarantinedError("has no pixels")
            shape, count = (int(header.Rows), int(header.Columns)), int(header.get("NumberOfFrames") or 1)
            size = count * shape[0] * shape[1] * int(header.SamplesPerPixel)
            if size > most or size <= 0:
                raise QuarantinedError(f"declares {size} values")
            shown = shown_of(shape, header, blank)
            pixels = pixel_array(header)  # YBR comes out as RGB
            if header.PhotometricInterpretation == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, header)
    except (QuarantinedError, MemoryError):
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds
        raise cannot("be decoded", error) from None
    video = pixels if count > 1 else pixels[None]
    return header, hidden(video, shown, header.PhotometricInterpretation == "MONOCHROME1")


def _grey(video: NDArray[Any]) -> NDArray[np.float32]:
    """ITU-R 601 luma of RGB frames, (F, H, W, 1)."""
    return (video.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _monochrome(video: NDArray[Any], header: FileDataset) -> NDArray[Any]:
    """(F, H, W) rescaled values, larger brighter."""
    values = apply_rescale(video, header)
    return values.max() - values.astype(np.float32) if header.PhotometricInterpretation == "MONOCHROME1" else values


def frame_time(header: Dataset) -> float | None:
    """Milliseconds between frames, from FrameTime, FrameTimeVector or CineRate, whichever the file has first."""
    if header.get("FrameTime"):
        return float(header.FrameTime)
    if (vector := header.get("FrameTimeVector")) is not None and len(np.atleast_1d(vector)) > 1:
        return float(np.mean([float(one) for one in vector[1:]]))
    return 1000 / float(header.CineRate) if header.get("CineRate") else None
