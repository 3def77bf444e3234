"""Masks of a clip as a DICOM Segmentation (PS3.3 A.51): one binary segment a class, frames that show nothing left out.

Frames refer to frames of the image that they belong to; there is no frame of reference, since a synthetic clip was recorded
nowhere. Written with pydicom: highdicom reads these, but writes segmentations of several frames only for images that have one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.tag import Tag
from pydicom.uid import UID, SegmentationStorage

from models.clip import UNKNOWN

SCHEME = "99CINEFAB"
"""Coding scheme of classes, which have names but no codes of a terminology."""

_OF_THE_IMAGE = ("SpecificCharacterSet", "SyntheticData", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
                 "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "AccessionNumber", "StudyID",
                 "StudyDescription", "Manufacturer", "ManufacturerModelName", "Rows", "Columns")


def segmentation(image: Dataset, masks: NDArray[np.uint8], classes: Sequence[str], uids: tuple[UID, UID, UID], date: str,
                 serial_number: str) -> Dataset:
    """The masks (T, H, W) of the multi-frame image of the same frames.

    Args:
        masks: 0 background, 1..K the classes, `models.clip.UNKNOWN` where nobody knows: a segment of that name.
        uids: of the instance, of its series, and of its dimensions.
        date: YYYYMMDD; the standard wants one.
        serial_number: of what made them.
    """
    names = [*classes, *(["unknown"] if (masks == UNKNOWN).any() else [])]
    numbered = np.where(masks == UNKNOWN, len(names), masks)
    shown = [(segment, frame) for segment in range(1, len(names) + 1) for frame in range(len(masks))
             if (numbered[frame] == segment).any()]
    made = Dataset()
    for name in _OF_THE_IMAGE:
        made[name] = image[name]
    made.SOPClassUID = SegmentationStorage
    made.SOPInstanceUID, made.SeriesInstanceUID, dimensions = uids
    made.Modality, made.SeriesNumber, made.InstanceNumber = "SEG", 2, 1
    made.SeriesDescription = made.ContentDescription = "masks that were asked for"
    made.PatientOrientation = ""
    made.DeviceSerialNumber, made.SoftwareVersions = serial_number[:64], "cinefab"
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.ContentLabel, made.ContentCreatorName = "MASKS", ""
    made.ContentDate, made.ContentTime = date, "000000"
    made.LossyImageCompression, made.SegmentationType = "00", "BINARY"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
    made.SegmentSequence = [_segment(number, name) for number, name in enumerate(names, 1)]
    made.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimensions)]
    made.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=dimensions, DimensionIndexPointer=Tag(name), FunctionalGroupPointer=Tag(group),
              DimensionDescriptionLabel=label)
        for name, group, label in (("ReferencedSegmentNumber", "SegmentIdentificationSequence", "segment"),
                                   ("InStackPositionNumber", "FrameContentSequence", "frame"))
    ]
    made.SharedFunctionalGroupsSequence = [Dataset()]
    made.PerFrameFunctionalGroupsSequence = [_frame(image, segment, frame + 1) for segment, frame in shown]
    made.ReferencedSeriesSequence = [_item(SeriesInstanceUID=image.SeriesInstanceUID,
                                           ReferencedInstanceSequence=[_reference(image)])]
    made.NumberOfFrames = len(shown)
    made.PixelData = pack_bits(np.stack([numbered[frame] == segment for segment, frame in shown]).astype(np.uint8), pad=True)
    return made


def _segment(number: int, name: str) -> Dataset:
    name = name.replace("\\", "/")[:64]  # a backslash would make two values of it
    return _item(
        SegmentNumber=number, SegmentLabel=name,
        SegmentAlgorithmType="AUTOMATIC", SegmentAlgorithmName="cinefab, mask asked for",
        SegmentedPropertyCategoryCodeSequence=[_code("CLASS", SCHEME, "Class of the data set")],
        SegmentedPropertyTypeCodeSequence=[_code(f"CLASS {number}", SCHEME, name)],
    )


def _frame(image: Dataset, segment: int, frame: int) -> Dataset:
    source = _reference(image)
    source.ReferencedFrameNumber, source.SpatialLocationsPreserved = frame, "YES"
    source.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
    return _item(
        FrameContentSequence=[_item(StackID="1", InStackPositionNumber=frame, DimensionIndexValues=[segment, frame])],
        DerivationImageSequence=[_item(SourceImageSequence=[source],
                                       DerivationCodeSequence=[_code("113076", "DCM", "Segmentation")])],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=segment)],
    )


def _reference(image: Dataset) -> Dataset:
    return _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**elements: object) -> Dataset:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made
