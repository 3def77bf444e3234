"""Inputs made to do harm: whole files, and what byte flips, truncations, false sizes, bombs and hypothesis make of them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import pydicom
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, generate_uid

SUFFIX = {"dicom": ".dcm", "nifti": ".nii", "nifti gz": ".nii.gz", "mp4": ".mp4", "png": ".png"}
"""Raw data, and how a file of it is called."""
FIELDS = [struct.pack(f"{order}{kind}", value) for order in "<>" for kind, values in
          (("H", (0, 0x7FFF, 0xFFFF)), ("I", (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000)), ("Q", (2**62, 2**64 - 1)),
           ("f", (float("nan"), float("inf"), 1e38)))
          for value in values]
"""Numbers that no honest header has."""
EVERY = 300
"""Mutants of a format from which on a file of up to 1100 bytes is cut at every one of them."""


@dataclass(frozen=True)
class Input:
    """One file's bytes, and what was done to them."""

    format: str
    mutation: str
    content: bytes


def video(frames: int = 6, side: int = 16, name: str = "a.mp4") -> bytes:
    rng, file = np.random.default_rng(0), io.BytesIO()
    with av.open(file, "w", format={".mp4": "mp4", ".avi": "avi"}[Path(name).suffix]) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (side, side), dtype=np.uint8), format="gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return file.getvalue()


def dicom(syntax: str = ExplicitVRLittleEndian, change: Callable[[Dataset], None] = lambda header: None) -> bytes:
    rng = np.random.default_rng(1)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.3.1", generate_uid(entropy_srcs=["cinefab"])
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.PatientID, header.Modality, header.FrameTime = "P1", "US", "40"
    header.Rows = header.Columns = 8
    header.NumberOfFrames, header.SamplesPerPixel, header.PhotometricInterpretation = "5", 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    inner = Dataset()
    inner.PixelSpacing = [1, 1]
    header.SharedFunctionalGroupsSequence = [inner]
    header.PixelData = rng.integers(0, 255, (5, 8, 8), dtype=np.uint8).tobytes()
    if syntax == RLELossless:
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.compress(RLELossless, generate_instance_uid=False)
    change(header)
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, enforce_file_format=True)
    return file.getvalue()


def nifti(change: Callable[[Any], None] = lambda header: None) -> bytes:
    image = nibabel.Nifti1Image(np.random.default_rng(2).integers(0, 300, (6, 7, 8)).astype(np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    change(header)
    content[:348] = header.binaryblock
    return bytes(content)


def png(side: int = 12) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (side, side), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def seeds() -> dict[str, list[bytes]]:
    """Whole raw files, by format; the first of each is small enough to be cut at every byte."""
    return {
        "dicom": [dicom(), dicom(RLELossless), dicom(DeflatedExplicitVRLittleEndian)],
        "nifti": [nifti()],
        "nifti gz": [gzip.compress(nifti(), mtime=0)],
        "mp4": [video(), video(name="a.avi")],
        "png": [png(), png(40)],
    }


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bombs() -> Iterator[Input]:
    """Small files that say they are, or become, enormous."""
    for rows, columns, frames, bits in ((65535, 65535, 1, 8), (65535, 65535, 2**31 - 1, 16), (8, 8, 10**9, 8),
                                        (16384, 16384, 2, 8), (8, 8, -5, 8), (0, 0, 0, 8), (20000, 20000, 1, 64)):
        def change(header: Dataset, rows: int = rows, columns: int = columns, frames: int = frames, bits: int = bits) -> None:
            header.Rows, header.Columns, header.NumberOfFrames, header.BitsAllocated = rows, columns, frames, bits
        for syntax in (ExplicitVRLittleEndian, RLELossless):
            yield Input("dicom", "declared size", dicom(syntax, change))

    def padded(header: Dataset) -> None:
        header.add_new(0x00091010, "OB", bytes(200_000_000))
    yield Input("dicom", "deflate bomb", dicom(DeflatedExplicitVRLittleEndian, padded))

    def nested(header: Dataset, depth: int = 900) -> None:
        inside = Dataset()
        for _ in range(depth):
            outside = Dataset()
            outside.SharedFunctionalGroupsSequence = [inside]
            inside = outside
        header.SharedFunctionalGroupsSequence = [inside]
    for depth in (50, 90):
        yield Input("dicom", "nesting", dicom(change=lambda header, depth=depth: nested(header, depth)))  # type: ignore[misc]
    deep = b"\x00\x52\x29\x92SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    whole = dicom()
    yield Input("dicom", "nesting", whole[:-(5 * 64 + 12)] + deep * 20_000)

    for shape, code in (((32767,) * 3, 4), ((32767, 32767, 1), 1792), ((512, 512, 2047), 64), ((0, 7, 8), 4), ((-3, 7, 8), 4),
                        ((32767,) * 7, 2), ((800, 800, 800), 2048)):
        def sized(header: Any, shape: tuple[int, ...] = shape, code: int = code) -> None:
            header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
            header["datatype"] = code
        yield Input("nifti", "declared size", nifti(sized))
        yield Input("nifti gz", "declared size", gzip.compress(nifti(sized), mtime=0))
    for offset in (1e9, 1e15, -1e9, float("nan")):
        def far(header: Any, offset: float = offset) -> None:
            header["vox_offset"] = offset
        yield Input("nifti", "declared size", nifti(far))
        yield Input("nifti gz", "declared size", gzip.compress(nifti(far), mtime=0))

    def large(header: Any) -> None:
        header["dim"] = [3, 500, 500, 200, 1, 1, 1, 1]
    yield Input("nifti gz", "gzip bomb", gzip.compress(nifti(large) + bytes(100_000_000), 9, mtime=0))
    yield Input("nifti gz", "gzip bomb", gzip.compress(gzip.compress(bytes(300_000_000), 9), mtime=0))
    yield Input("nifti gz", "gzip bomb", gzip.compress(nifti()[:352] + bytes(300_000_000), 9, mtime=0))

    start = b"\x89PNG\r\n\x1a\n"
    for width, height in ((2**31 - 1, 2**31 - 1), (60_000, 60_000), (1, 2**31 - 1), (0, 0), (8000, 7900)):
        rows = zlib.compress(bytes(min(height * (1 + width), 70_000_000)), 9)
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        yield Input("png", "declared size", start + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b""))
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    yield Input("png", "deflate bomb", start + _chunk(b"IHDR", header) + _chunk(b"zTXt", text) + _chunk(b"IEND", b""))

    for width, height in ((65535, 65535), (16384, 16384), (0, 0)):  # the visual sample entry's size, and the track's
        content = bytearray(video())
        place = content.index(b"mp4v") + 28
        content[place : place + 4] = struct.pack(">HH", width, height)
        yield Input("mp4", "declared size", bytes(content))
    for count in (2**31, 2**32 - 1):
        for box in (b"stsz", b"stts", b"stsc", b"stco"):
            content = bytearray(video())
            place = content.index(box) + (12 if box == b"stsz" else 8)
            content[place : place + 4] = struct.pack(">I", count)
            yield Input("mp4", "declared size", bytes(content))


def names_others(secret: Path) -> Iterator[Input]:
    """What lists other files for FFmpeg, or starts a program, called a video or a picture."""
    address = secret.as_uri()
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n"
    lists = [playlist, playlist.replace(str(secret), address), playlist.replace(str(secret), f"concat:{secret}|{secret}"),
             f"ffconcat version 1.0\nfile '{secret}'\n", f"ffconcat version 1.0\nfile '{secret.name}'\n",
             f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile,subfile,,start,0,end,9,,:{secret}\n#EXT-X-ENDLIST\n",
             f"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period><AdaptationSet mimeType='video/mp4'>"
             f"<Representation id='1' bandwidth='1'><BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period>"
             "</MPD>",
             "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"]
    for content in lists:
        yield Input("mp4", "names other files", content.encode())
    yield Input("png", "names other files", f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({secret}) run\n".encode())


def mutants(format: str, whole: list[bytes], count: int) -> Iterator[Input]:
    """So many changed files, a third of them the first one cut at places all along it: at every one, if many are asked for."""
    rng = np.random.default_rng(sum(format.encode()))
    cuts = len(whole[0]) if count > EVERY and len(whole[0]) <= 1100 else min(len(whole[0]), count // 3)
    for length in np.unique(np.linspace(0, len(whole[0]) - 1, cuts).astype(int)).tolist():
        yield Input(format, "truncation", whole[0][:length])
    for number in range(count - min(cuts, count // 3)):
        content = bytearray(whole[number % len(whole)])
        place = int(rng.integers(min(len(content), 600 if number % 2 else len(content))))  # headers lie at the beginning
        match number % 5:
            case 0:
                content[place] ^= 1 << int(rng.integers(8))
                name = "one bit flipped"
            case 1:
                for where in rng.integers(0, len(content), int(rng.integers(2, 24))).tolist():
                    content[where] = int(rng.integers(256))
                name = "bytes changed"
            case 2:
                field = FIELDS[int(rng.integers(len(FIELDS)))]
                content[place : place + len(field)] = field
                name = "false number"
            case 3:
                other = whole[int(rng.integers(len(whole)))]
                cut = int(rng.integers(len(other)))
                content = content[:place] + other[cut:]
                name = "spliced"
            case _:
                length = int(rng.integers(1, 200))
                if rng.integers(2):
                    del content[place : place + length]
                else:
                    content[place:place] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
                name = "cut out or put in"
        yield Input(format, name, bytes(content))


def disguised(whole: dict[str, list[bytes]]) -> Iterator[Input]:
    """Every format under every other one's name."""
    strangers = [content[0] for content in whole.values()]
    strangers += [b"", b"\0" * 4096, b"PK\x03\x04" + bytes(60), b"\x7fELF" + bytes(200), b"<html>", b"\xff" * 1000,
                  "päß".encode()]
    for format in whole:
        for content in strangers:
            if content not in whole[format]:
                yield Input(format, "another format", content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["../../etc/passwd", "\0", "1e999", "~", "__class__"]),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4), max_leaves=12)


def made(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many examples of a strategy, the same every time."""
    found: list[Any] = []

    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate], deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found[:count]


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in children:
        yield from _paths(one, (*at, key))


def restructured(tree: Any, count: int) -> Iterator[Any]:
    """A tree of plain values with one of its parts replaced by hypothesis, taken out, or renamed."""
    places = [path for path in _paths(tree) if path]
    for number, (value, choice) in enumerate(made(st.tuples(JSON, st.integers(0, 2**20)), count)):
        changed = json.loads(json.dumps(tree))
        *above, last = places[choice % len(places)]
        parent = changed
        for key in above:
            parent = parent[key]
        if number % 4 == 3 and isinstance(parent, dict):
            parent[f"{last}x"] = parent.pop(last)
        elif number % 4 == 2 and isinstance(parent, dict):
            del parent[last]
        else:
            parent[last] = value
        yield changed


def of_json(format: str, whole: bytes, count: int, seal: Callable[[Any], Any] | None = None) -> Iterator[Input]:
    """Restructured, and where records carry a checksum, also with the right one of what they say now."""
    tree = json.loads(whole)
    for number, changed in enumerate(restructured(tree, count)):
        right = seal is not None and number % 2 == 0
        try:
            content = seal(changed) if right and seal else changed
        except (TypeError, KeyError, AttributeError, ValueError):  # nothing is left to be sealed
            content, right = changed, False
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        yield Input(format, "restructured and sealed" if right else "restructured", text.encode(errors="replace"))
    for content in (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 100_000, b"null", b"[]", b"{}", b'"x"', b"NaN", b"\xff\xfe", b""):
        yield Input(format, "another structure", content)


def of_yaml(format: str, whole: bytes, count: int) -> Iterator[Input]:
    tree = yaml.safe_load(whole)
    for changed in restructured(tree, count):
        yield Input(format, "restructured", yaml.safe_dump(changed).encode())
    laughs = "\n".join([f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9) if before else 'lol'}]"
                        for before, letter in zip(["", *"abcdefgh"], "abcdefghi", strict=True)])
    for text in (laughs, "[" * 20_000, "{a: " * 5_000, "- " * 20_000, "!!python/object/apply:os.system ['true']",
                 "a: 1\na: 2\n", "&a [*a]", "&a {x: *a}", "? [1]\n: 2", "1", "null", "", "\t", "a: !!binary x",
                 "a: " + "9" * 10_000, "--- a\n--- b",
                 "%YAML 9.9\n---\na: 1", "0o17: 1", "2020-01-01: 2020-13-45", "<<: 1", "<<: {a: 1}"):
        yield Input(format, "another structure", text.encode())
