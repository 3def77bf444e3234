"""What is kept of a DICOM header: the attributes named here, where they hold what their name promises; nothing else.

An allow-list, since nobody can list all places where a name may stand: attributes of newer editions, private ones, text in a
field of numbers. All that is kept are numbers, codes from the lists below and registered UIDs, so that no free text is left.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

NUMBERS = frozenset({
    # frames and pixels: PS3.3 C.7.6.3, C.7.6.6
    "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    # how large and how fast: C.7.6.5, C.10.7
    "PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "FrameTime", "FrameTimeVector", "CineRate",
    "RecommendedDisplayFrameRate",
    # where ultrasound shows echoes: C.8.5.5
    "RegionSpatialFormat", "RegionDataType", "RegionFlags", "RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1",
    "RegionLocationMaxY1", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection", "PhysicalDeltaX", "PhysicalDeltaY",
})
CODES = {
    "PhotometricInterpretation": {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422",
                                  "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"},
    "BurnedInAnnotation": {"YES", "NO"},
    "LossyImageCompression": {"00", "01"},
    "Modality": {"CT", "DX", "ECG", "ES", "GM", "IVOCT", "IVUS", "MG", "MR", "NM", "OP", "OPT", "OT", "PT", "RF", "RTDOSE",
                 "SM", "US", "XA", "XC"},
}
UIDS = frozenset({"SOPClassUID"})
SEQUENCES = frozenset({"SequenceOfUltrasoundRegions"})
POINTERS = {"FrameIncrementPointer": {tag_for_keyword("FrameTime"), tag_for_keyword("FrameTimeVector")}}
KEPT = NUMBERS | UIDS | SEQUENCES | set(CODES) | set(POINTERS)
PIXELS = frozenset({
    "PixelData", *(f"{colour}PaletteColorLookupTable{what}" for colour in ("Red", "Green", "Blue")
                   for what in ("Data", "Descriptor")),
})
"""What else pixels are decoded from; it is in no header that is kept."""


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom quotes in warnings and in its log what it reads; here it says nothing, and does not check more than it must."""
    before, said = config.settings.reading_validation_mode, config.logger.disabled
    config.settings.reading_validation_mode, config.logger.disabled = config.IGNORE, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode, config.logger.disabled = before, said


def read_kept(file: Path) -> FileDataset:
    """The header of a file, of which all but KEPT and PIXELS is dropped as it is opened.

    Raises:
        Exception: whatever pydicom raises for a file that is none; its words may quote the file.
    """
    opened = dcmread(file, specific_tags=sorted(KEPT | PIXELS))
    pixels = [opened[name] for name in sorted(PIXELS) if name in opened]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = opened.file_meta.TransferSyntaxUID
    made = FileDataset("", kept(opened), file_meta=meta)
    for element in pixels:
        made.add(element)
    return made


def kept(header: Dataset) -> Dataset:
    """A new dataset of what is kept, items of sequences likewise."""
    made = Dataset()
    for tag in header.keys():  # noqa: SIM118 (pydicom iterates over elements)
        if (element := kept_element(header, tag)) is not None:
            made.add(element)
    return made


def kept_element(header: Dataset, tag: Any) -> DataElement | None:
    """One attribute, if it is named here and its value is what that promises."""
    name = keyword_for_tag(tag)
    if name not in KEPT:
        return None
    try:
        element = header[tag]
        if dictionary_VR(tag) != element.VR:
            return None
        if name in SEQUENCES:
            return DataElement(tag, "SQ", Sequence([kept(item) for item in element.value]))
        value = element.value
        every = list(value) if isinstance(value, (MultiValue, list)) else [value]
        return DataElement(tag, element.VR, value) if every and all(_as_promised(name, one) for one in every) else None
    except Exception:  # a value that is none of its kind: pydicom raises many things, in the value's own words
        return None


def _as_promised(name: str, value: Any) -> bool:
    if name in NUMBERS:
        return isinstance(value, int | float) and isfinite(value)
    if name in POINTERS:
        return int(value) in POINTERS[name]
    return str(value) in CODES.get(name, UID_dictionary)
