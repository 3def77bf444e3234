"""A made corpus of DICOM files in which every place that could tell who somebody is holds a word that nothing else holds.

All words begin alike, so that a search for the beginning finds any of them, whole or cut off; UIDs, which hold no letters, have
a number of their own in their middle.
"""

from __future__ import annotations

import base64
import itertools
import sqlite3
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zarr
from PIL import Image, ImageDraw
from pydicom import config, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from tasks.confidentiality import table

WORD, NUMBER = "QZXJKW", "777333555"
FRAMES, HEIGHT, WIDTH = 8, 48, 64
REGION = (8, 12, 55, 45)
"""x0, y0, x1, y1, the last ones included; burned-in text lies outside of it, in BOXES."""
BOXES = [(0, 0, 64, 11), (56, 12, 64, 48)]
DATES = {"DA": "18631119", "DT": "18631119101112", "TM": "101112"}


class Words:
    """Words that nothing else holds, in their order."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def next(self) -> str:
        self.planted.append(f"{WORD}{len(self.planted):04d}")
        return self.planted[-1]

    def uid(self) -> str:
        self.planted.append(f"1.2.840.{NUMBER}.{len(self.planted)}")
        return self.planted[-1]


def value(vr: str, words: Words, odd: bool) -> Any:
    """A value of this kind with a word in it as far as it can hold one; `odd`: also where the standard forbids it."""
    if vr in ("DS", "IS"):
        return "31415"
    if vr in ("US", "SS", "UL", "SL", "FL", "FD"):
        return 31415 if vr != "FL" else 3.0
    if vr in ("OB", "UN", "OW"):
        return words.next().encode()
    if vr == "UI":
        return UID(words.uid())
    if vr == "AS" and not odd:
        return "042Y"
    return words.next() if vr not in DATES or odd else DATES[vr]


def fill(header: Dataset, words: Words, odd: bool) -> None:
    """Every attribute of Table E.1-1 that may be in a data set; items of sequences hold names, private ones and more items."""
    for tag in table():
        if tag[0] in (0, 2):  # commands, which are in no file, and file meta information, which `start` has
            continue
        group = tag[0] + (2 if len(tag) > 2 else 0)  # of repeating groups the second
        element = tag[1] + (0x10 if tag[:2] == (0x5000, 0) else 0)
        add(header, Tag(group, element), words, odd)


def add(header: Dataset, tag: Tag, words: Words, odd: bool) -> None:
    try:
        vr = dictionary_VR(tag).split(" or ")[0]
    except KeyError:  # newer than pydicom's dictionary
        vr = "LO"
    if vr == "SQ":
        header.add(DataElement(tag, vr, Sequence([item(words, 2)])))
    else:
        header.add(DataElement(tag, vr, value(vr, words, odd), validation_mode=config.IGNORE))


def item(words: Words, deeper: int) -> Dataset:
    made = Dataset()
    made.PatientName, made.TextValue, made.CodeMeaning = words.next(), words.next(), words.next()
    made.ReferencedSOPInstanceUID = words.uid()
    private(made, words)
    if deeper > 1:
        made.ReferencedStudySequence = [item(words, deeper - 1)]
    return made


def private(header: Dataset, words: Words) -> None:
    block = header.private_block(0x0009, words.next(), create=True)
    block.add_new(1, "LO", words.next())
    block.add_new(2, "UN", words.next().encode())
    block.add_new(3, "PN", words.next())


def film(seed: int, text: str, channels: int = 1) -> np.ndarray:
    """(F, H, W) or (F, H, W, 3) of moving noise, with burned-in text outside of the region."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(30, 120, (FRAMES, HEIGHT, WIDTH, channels)).astype(np.uint8)
    picture = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).text((0, -1), text, fill=255)
    turned = Image.new("L", (HEIGHT, WIDTH))
    ImageDraw.Draw(turned).text((12, 0), text, fill=255)
    burned = np.maximum(np.asarray(picture), np.asarray(turned).T[:, ::-1])
    x0, y0, x1, y1 = REGION
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[y0 : y1 + 1, x0 : x1 + 1] = False
    pixels[:, outside] = burned[outside][None, :, None]
    return pixels if channels > 1 else pixels[..., 0]


def start(pixels: np.ndarray, words: Words, regions: bool = True) -> FileDataset:
    """An ultrasound cine of somebody new, with what all variants have."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundMultiFrameImageStorage, UID(words.uid())
    meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle = ExplicitVRLittleEndian, words.next()
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = UID(words.uid()), words.next().encode()
    header = FileDataset("", {}, file_meta=meta, preamble=words.next().encode().ljust(128, b"\0"))
    header.SOPClassUID, header.SOPInstanceUID = UltrasoundMultiFrameImageStorage, meta.MediaStorageSOPInstanceUID
    header.PatientID, header.PatientName, header.Modality = words.next(), words.next(), "US"
    header.StudyInstanceUID, header.SeriesInstanceUID = words.uid(), words.uid()
    header.FrameTime, header.FrameIncrementPointer = "40", Tag("FrameTime")
    if regions:
        header.SequenceOfUltrasoundRegions = [region(words)]
    kind = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    header.set_pixel_data(pixels, kind, pixels.itemsize * 8, generate_instance_uid=False)
    private(header, words)
    return header


def region(words: Words) -> Dataset:
    made = Dataset()
    made.RegionSpatialFormat, made.RegionDataType, made.RegionFlags = 1, 1, 0
    for corner, place in zip(("MinX0", "MinY0", "MaxX1", "MaxY1"), REGION, strict=True):
        setattr(made, f"RegionLocation{corner}", place)
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX = made.PhysicalDeltaY = 0.05
    made.PatientComments = words.next()
    private(made, words)
    return made


def write_corpus(root: Path) -> tuple[list[str], dict[str, Path]]:
    """The words that were planted and the files by what is the matter with them."""
    words = Words()
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        return words.planted, dict(_files(root, words))
    finally:
        config.settings.writing_validation_mode = before


def _files(root: Path, words: Words) -> Iterator[tuple[str, Path]]:
    seeds = itertools.count()

    def save(kind: str, header: Dataset, tail: bytes = b"") -> tuple[str, Path]:
        path = root / words.next() / f"{words.next()}.dcm"
        path.parent.mkdir(parents=True)
        dcmwrite(path, header, enforce_file_format=True)
        with path.open("ab") as file:
            file.write(tail)
        return kind, path

    proper = start(film(next(seeds), words.next()), words)
    fill(proper, words, odd=False)
    proper.BurnedInAnnotation = "YES"
    yield save("proper", proper)
    odd = start(film(next(seeds), words.next(), 3), words)
    fill(odd, words, odd=True)
    odd.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    yield save("odd", odd)

    rle = start(film(next(seeds), words.next(), 3), words)
    rle.compress(RLELossless, generate_instance_uid=False)
    yield save("rle", rle)
    pixels = film(next(seeds), words.next(), 3)
    jpeg = start(pixels, words)
    jpeg.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    jpeg.PixelData, jpeg.PhotometricInterpretation = encapsulate([_jpeg(one, words.next()) for one in pixels]), "YBR_FULL_422"
    jpeg["PixelData"].is_undefined_length = True
    yield save("jpeg", jpeg)
    palette = start(film(next(seeds), words.next()), words)
    palette.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(palette, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(palette, f"{colour}PaletteColorLookupTableData", (np.arange(256, dtype="<u2") * 257).tobytes())
    yield save("palette", palette)
    inverse = start(film(next(seeds), words.next()).astype(np.uint16) * 16, words)
    inverse.PhotometricInterpretation = "MONOCHROME1"
    inverse.BitsStored, inverse.HighBit = 12, 11
    inverse.PixelData = (np.frombuffer(inverse.PixelData, "<u2") | 0xA000).tobytes()  # an overlay in the bits above
    yield save("monochrome1", inverse, words.next().encode())
    big = start(film(next(seeds), words.next(), 3), words)
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian  # of bytes there is no order
    yield save("big_endian", big)

    text = start(film(next(seeds), words.next()), words)
    text.SpecificCharacterSet, text.Modality, text.FrameIncrementPointer = words.next(), words.next(), Tag("PatientName")
    text.add(DataElement(Tag("CineRate"), "LO", words.next()))  # a number that is text
    text.add(DataElement(Tag("RescaleSlope"), "SH", words.next()))
    text.add(DataElement(Tag("StudyDate"), "LO", words.next()))
    text.add(DataElement(Tag("PatientBirthDate"), "SQ", [item(words, 2)]))
    yield save("text_for_numbers", text)

    unsaid = start(film(next(seeds), words.next()), words, regions=False)
    unsaid.BurnedInAnnotation = "YES"
    yield save("burned_in", unsaid)
    outside = start(film(next(seeds), words.next()), words)
    outside.SequenceOfUltrasoundRegions[0].RegionLocationMaxX1 = 500
    yield save("foreign_regions", outside)
    rows = start(film(next(seeds), words.next()), words)
    rows.add(DataElement(Tag("Rows"), "LO", words.next()))
    yield save("rows_are_text", rows)
    frames = start(film(next(seeds), words.next()), words)
    frames.add(DataElement(Tag("PhotometricInterpretation"), "CS", words.next(), validation_mode=config.IGNORE))
    yield save("interpretation_is_text", frames)
    short = start(film(next(seeds), words.next()), words)
    short.PixelData = words.next().encode()
    yield save("short", short)
    yield _raw("no_dicom", root, words, f"{words.next()} is no DICOM file".encode())
    yield _raw("cut", root, words, _cut(proper, words))


def _raw(kind: str, root: Path, words: Words, content: bytes) -> tuple[str, Path]:
    path = root / words.next() / f"{words.next()}.dcm"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return kind, path


def _cut(header: FileDataset, words: Words) -> bytes:
    """The beginning of a file, up to the middle of a name."""
    content = BytesIO()
    dcmwrite(content, header, enforce_file_format=True)
    whole = content.getvalue()
    return whole[: whole.index(b"PN", 2000) + 10] + words.next().encode()


def _jpeg(frame: np.ndarray, comment: str) -> bytes:
    content = BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=95, comment=comment.encode())
    return content.getvalue()


# --- the search ------------------------------------------------------------------------------------------------------------


def _forms(word: str) -> list[bytes]:
    plain = word.encode()
    found = [plain, plain.lower(), word.encode("utf-16-le"), word.encode("utf-16-be"), plain.hex().encode(),
             plain.hex().upper().encode()]
    for before in range(3):  # base64 spells a word in three ways, by where it begins
        bits = 8 * before
        spelled = base64.b64encode(bytes(before) + plain)
        found.append(spelled[-(-bits // 6) : (bits + 8 * len(plain)) // 6])
    return found


FORMS = [form for word in (WORD, NUMBER) for form in _forms(word)]


def found_in(content: bytes) -> list[bytes]:
    """What of the planted words is in these bytes: as text, in UTF-16, in hexadecimal digits or in base64."""
    hits = []
    for form in FORMS:
        place = content.find(form)
        if place >= 0:
            hits.append(content[max(0, place - 40) : place + 40])
    return hits


def found_below(folder: Path) -> dict[str, list[bytes]]:
    """By file: names and contents, and of tables, arrays, databases and archives what they hold when opened."""
    hits: dict[str, list[bytes]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        contents = [name.encode(), *(_opened(path) if path.is_file() else [])]
        if path.suffix == ".zarr":
            contents += [np.ascontiguousarray(array[:]).tobytes() for _, array in zarr.open_group(path, mode="r").arrays()
                         if array.dtype != object]
        if seen := [hit for content in contents for hit in found_in(content)]:
            hits[name] = seen
    return hits


def _opened(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if path.suffix == ".parquet":
        yield str(pq.read_table(path).to_pylist()).encode()
        yield str(pq.read_schema(path).metadata).encode()
    if content.startswith(b"SQLite format 3\0"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            yield "\n".join(database.iterdump()).encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(one) for one in archive.namelist())
