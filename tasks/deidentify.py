"""De-identified copies of a folder of DICOM files, for a site that wants the raw folder clean before anybody else sees it.

Headers follow PS3.15's basic profile (`tasks.confidentiality`), burned-in text is hidden as the reader of DICOM hides it.
Pixels are decoded and written anew without compression, so that no comment inside of a compressed frame and no byte behind the
last one comes along. Preamble and file meta information are new. Equal files and the same key give equal copies. Each file is
read in a process of its own, with limits: what it does to a decoder costs that file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from tasks.burned_in import Box, not_of
from tasks.confidentiality import EDITION, deidentified, patient_of
from tasks.dicom_header import quiet
from tasks.limits import limited
from tasks.pseudonyms import key, other_uid, pseudonym
from tasks.readers import QuarantinedError, cannot
from tasks.readers.dicom import read_pixels
from tasks.records import QuarantineRecord
from tasks.tables import atomic_write, file_digest
from tasks.yaml_files import read_yaml

NEVER_ABSENT = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID",
                "AccessionNumber", "SeriesNumber", "InstanceNumber", "Manufacturer")
"""Type 2 in modules that every image has (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.7.6.1): empty where nothing is left."""


@dataclass(frozen=True)
class Deidentified:
    """How many copies were written, and what was left out, by the sha256 of its bytes, and why."""

    written: int
    left_out: tuple[QuarantineRecord, ...]


def deidentify(folder: Path, out: Path, blank: Sequence[Box] | None) -> Deidentified:
    """Write OUT/PATIENT/INSTANCE.dcm, both keyed hashes, for every DICOM file with pixels below the folder.

    Args:
        blank: boxes of burned-in text, as `tasks.burned_in.shown_of` takes them.

    Raises:
        ValueError: if the folder holds no file, `out` lies in it or holds something, or there is no key.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if not files:
        raise ValueError(f"{folder}: holds no file; give the folder of the DICOM files")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out}: lies in {folder}, whose files are not clean; give a folder elsewhere")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: holds something that nobody has cleaned; give a new folder")
    key()
    return _all(files, out, None if blank is None else list(blank))


def _all(files: Sequence[Path], out: Path, blank: list[Box] | None) -> Deidentified:
    written: set[Path] = set()
    left_out = []
    for file in files:
        digest = file_digest(file)
        try:
            name, content = limited(partial(_named, file, digest, blank)).split(b"\n", 1)
            path = out / name.decode()
            if path in written:
                raise QuarantinedError("has the SOP Instance UID of another file")
            atomic_write(path, content)
            written.add(path)
        except QuarantinedError as error:
            left_out.append(QuarantineRecord(digest, str(error)))
    return Deidentified(len(written), tuple(left_out))


def copy_of(file: Path, digest: str, blank: list[Box] | None) -> FileDataset:
    """The de-identified copy of one file, to be written in Explicit VR Little Endian.

    Raises:
        QuarantinedError: if its pixels cannot be used, or it does not say what kind of object it is.
    """
    kept, frames = read_pixels(file, blank)
    try:
        with quiet():
            header = dcmread(file, stop_before_pixels=True)
            made = deidentified(header, patient_of(header, digest))
            _with_pixels(made, kept, frames)
    except Exception as error:  # as the reader of DICOM
        raise cannot("be de-identified", error) from None
    if "SOPClassUID" not in made:
        raise QuarantinedError("does not say what kind of object it is (SOPClassUID)")
    _complete(made, digest)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return FileDataset("", made, file_meta=meta, preamble=bytes(128))


def _with_pixels(made: Dataset, kept: Dataset, frames: NDArray[Any]) -> None:
    colour = frames.ndim == 4
    bits = frames.itemsize * 8 if colour or frames.itemsize * 8 != kept.BitsAllocated else int(kept.BitsStored)
    made.set_pixel_data(frames if len(frames) > 1 else np.ascontiguousarray(frames[0]),
                        "RGB" if colour else kept.PhotometricInterpretation, bits, generate_instance_uid=False)
    regions = made.get("SequenceOfUltrasoundRegions")
    if regions and not_of(frames.shape[1:3], regions):
        del made.SequenceOfUltrasoundRegions
    if made.get("BurnedInAnnotation") == "YES":
        del made.BurnedInAnnotation  # what was said to be text is hidden; that no other is left, nobody has looked


def _complete(made: Dataset, digest: str) -> None:
    """What an image must have, and how it was de-identified (PS3.3 C.7.1.1, PS3.16 CID 7050)."""
    for name in NEVER_ABSENT:
        if name not in made:
            setattr(made, name, None if name.endswith("Number") else "")
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if name not in made:
            setattr(made, name, other_uid(digest))
    if "PatientID" not in made or "PatientName" not in made:
        made.PatientID = made.PatientName = patient_of(Dataset(), digest)
    if "FrameTime" in made and "FrameIncrementPointer" not in made:
        made.FrameIncrementPointer = Tag("FrameTime")
    made.Modality = made.get("Modality", "OT")
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.PatientIdentityRemoved = "YES"
    made.LongitudinalTemporalInformationModified = "REMOVED"
    made.DeidentificationMethod = f"cinefab: PS3.15 {EDITION}, basic profile"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    made.DeidentificationMethodCodeSequence = [code]


def _named(file: Path, digest: str, blank: list[Box] | None) -> bytes:
    """Where the copy goes, a line, and its bytes."""
    made, content = copy_of(file, digest, blank), BytesIO()
    dcmwrite(content, made, enforce_file_format=True)
    return f"{made.PatientID}/{pseudonym(made.SOPInstanceUID)}.dcm\n".encode() + content.getvalue()


class Recipe(BaseModel):
    """A site's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blank: list[Box]


def read_recipe(path: Path) -> list[Box]:
    """The boxes of a recipe.

    Raises:
        ValueError: if it is none.
    """
    try:
        return Recipe.model_validate(read_yaml(path)).blank
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: is no recipe, {{blank: [[x0, y0, x1, y1], ...]}}: {' '.join(str(error).split())}") from None


def lines(found: Deidentified) -> Iterator[str]:
    """What to tell whoever asked for it."""
    for one in found.left_out:
        yield f"left out: {one.file[:16]} {one.reason}"
    yield f"{found.written} files written, {len(found.left_out)} left out"
