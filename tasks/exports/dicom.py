"""Multi-frame DICOM that says of itself that it is synthetic, and its masks as DICOM segmentations.

Ultrasound (`release.modality: US`) becomes Ultrasound Multi-frame Images, all else Multi-frame Secondary Captures, grey or true
colour. Every file has Synthetic Data (0008,001C) = YES. UIDs are hashes of the clip, so equal clips have equal ones; there is
no patient, and the fields for one say so.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tasks.dicom_masks import SCHEME, segmentation
from tasks.exports import SHOWN_PER_SECOND, Cells, Clip
from tasks.tables import atomic_write

OPENED_BY = """any DICOM viewer; in Python:

```python
import highdicom, pydicom
frames = pydicom.dcmread("frames/CLIP_ID.dcm")  # frames.pixel_array: (T, H, W) or (T, H, W, 3)
masks = highdicom.seg.segread("masks/CLIP_ID.dcm").get_pixels_by_source_frame(
    frames.SOPInstanceUID, range(1, frames.NumberOfFrames + 1), combine_segments=True,
    assert_missing_frames_are_empty=True)  # label maps (T, H, W)
```"""
LOSES = ("Nothing of the pixels. A clip whose masks show nothing has no mask file; frames whose masks nobody knows are a "
         "segment of their own, `unknown`.")

NO_DATE = "19700101"
"""Segmentations must have a date; this one stands where `release.released` was not given."""


def write(part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]:
    rows = []
    for clip in clips:
        image = _image(clip, facts)
        film = Path("frames") / f"{clip.clip_id}.dcm"
        atomic_write(out / film, _bytes(image))
        row = {"file": str(film), "mask_file": ""}
        if clip.masks.any():
            row["mask_file"] = str(Path("masks") / film.name)
            atomic_write(out / row["mask_file"], _bytes(_masks(clip, image, facts)))
        rows.append(row | {"sop_instance_uid": str(image.SOPInstanceUID)})
    return rows


def heading(facts: Mapping[str, Any], rows: list[Cells]) -> str:
    about = ("Every file has Synthetic Data (0008,001C) = YES. There is no patient: PatientID is the clip's, PatientName says "
             f"SYNTHETIC. UIDs are hashes of the clips; codes of classes are of a private scheme, {SCHEME}.")
    if _modality(facts) == "US" and not facts["clip"].get("frame_time_ms"):
        about += (f" The release does not know how long a frame lasts: Frame Time is {1000 / SHOWN_PER_SECOND:g} ms, for "
                  "players alone.")
    return about


def _image(clip: Clip, facts: Mapping[str, Any]) -> Dataset:
    """The clip's frames: modules of PS3.3 A.7 (ultrasound) or A.8.3 and A.8.5 (secondary capture)."""
    count, height, width, channels = clip.frames.shape
    grey, ultrasound, milliseconds = channels == 1, _modality(facts) == "US", facts["clip"].get("frame_time_ms")
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = (UltrasoundMultiFrameImageStorage if ultrasound else
                         MultiFrameGrayscaleByteSecondaryCaptureImageStorage if grey else
                         MultiFrameTrueColorSecondaryCaptureImageStorage)
    image.SOPInstanceUID = _uid(clip, "frames")
    image.SyntheticData = "YES"
    image.PatientName, image.PatientID = f"SYNTHETIC^{clip.clip_id[:16]}", clip.clip_id[:64]
    image.PatientBirthDate = image.PatientSex = ""
    image.StudyInstanceUID, image.SeriesInstanceUID = _uid(clip, "study"), _uid(clip, "frames series")
    image.StudyDate = image.StudyTime = image.ReferringPhysicianName = image.AccessionNumber = image.StudyID = ""
    image.StudyDescription = f"{facts['name']} {facts['version']}: synthetic"[:64]
    image.Modality, image.SeriesNumber, image.InstanceNumber = _modality(facts), 1, 1
    image.SeriesDescription = f"synthetic, by {clip.known['generator']}"[:64]
    image.Manufacturer, image.ManufacturerModelName = "cinefab", clip.known["generator"][:64]
    image.PatientOrientation = image.Laterality = image.ContentDate = image.ContentTime = ""
    image.ImageType, label = ["DERIVED", "SECONDARY"], clip.known["label"]
    if said := ". ".join(word for word in (f"class: {label}" if label else "", clip.known["text"]) if word):
        image.ImageComments = said[:10240]
    image.LossyImageCompression, image.BurnedInAnnotation = "00", "NO"
    image.NumberOfFrames, image.Rows, image.Columns = count, height, width
    image.SamplesPerPixel, image.PhotometricInterpretation = channels, "MONOCHROME2" if grey else "RGB"
    if not grey:
        image.PlanarConfiguration = 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    if ultrasound:
        image.FrameTime = milliseconds or 1000 / SHOWN_PER_SECOND
        image.FrameIncrementPointer = Tag("FrameTime")
    else:
        image.ConversionType = "SYN"
        image.FrameIncrementPointer = Tag("FrameTime" if milliseconds else "PageNumberVector")
        if milliseconds:
            image.FrameTime = milliseconds
        else:
            image.PageNumberVector = list(range(1, count + 1))
        if (spacing := facts["clip"].get("spacing_mm")) is not None:
            image.PixelSpacing = [f"{value:.6g}" for value in spacing[1:]]
    if grey:
        image.PresentationLUTShape = "IDENTITY"
        if not ultrasound:
            image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    pixels = clip.frames.tobytes()
    image.PixelData = pixels + b"\0" * (len(pixels) % 2)
    image.file_meta = _meta(image)
    return image


def _masks(clip: Clip, image: Dataset, facts: Mapping[str, Any]) -> Dataset:
    uids = (_uid(clip, "masks"), _uid(clip, "masks series"), _uid(clip, "dimensions"))
    date = str(facts.get("about", {}).get("released") or NO_DATE).replace("-", "")
    made_by = str(facts["checkpoints"].get(clip.known["generator"]) or "unknown")
    made = segmentation(image, clip.masks, facts["dataset"]["classes"], uids, date, made_by)
    made.file_meta = _meta(made)
    return made


def _uid(clip: Clip, what: str) -> UID:
    return generate_uid(entropy_srcs=["cinefab", clip.clip_id, clip.known["digest"], what])


def _modality(facts: Mapping[str, Any]) -> str:
    return facts.get("about", {}).get("modality") or "OT"


def _meta(image: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _bytes(image: Dataset) -> bytes:
    content = io.BytesIO()
    dcmwrite(content, image, enforce_file_format=True)
    return content.getvalue()
