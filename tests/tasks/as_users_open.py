"""Every export, opened by the library its users would open it with: clip_id -> (frames (T, H, W, C), masks, what it says)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import datasets
import highdicom
import nibabel
import numpy as np
import pydicom
import webdataset
from numpy.typing import NDArray

Opened = tuple[str, NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]]


def manifest(folder: Path) -> list[dict[str, Any]]:
    """Rows of manifest.csv with lists as lists, numbers as numbers and no class as None: as the release's own has them."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row |= {name: json.loads(row[name]) for name in ("patients", "classes", "frames", "height", "width")}
        row["label"] = row["label"] or None
    return rows


def mp4(folder: Path, cache: Path) -> Iterator[Opened]:
    for row in manifest(folder):
        frames, masks = _film(folder / row["file"], "rgb24"), _film(folder / row["mask_file"], "gray")
        yield row["clip_id"], frames[:, : row["height"], : row["width"]], masks, row


def nifti(folder: Path, cache: Path) -> Iterator[Opened]:
    for row in manifest(folder):
        frames, masks = (np.asarray(nibabel.load(folder / row[name]).dataobj) for name in ("file", "mask_file"))
        colours = frames.shape[-1] if frames.ndim == 5 else 1
        yield (row["clip_id"], frames.reshape(row["width"], row["height"], -1, colours).transpose(2, 1, 0, 3)[:, ::-1],
               masks.reshape(row["width"], row["height"], -1).transpose(2, 1, 0)[:, ::-1], row)


def dicom(folder: Path, cache: Path) -> Iterator[Opened]:
    for row in manifest(folder):
        image = pydicom.dcmread(folder / row["file"])
        frames = image.pixel_array.reshape(row["frames"], row["height"], row["width"], -1)
        masks = np.zeros(frames.shape[:3], np.uint8)
        if row["mask_file"]:
            found = highdicom.seg.segread(folder / row["mask_file"])
            masks = found.get_pixels_by_source_frame(image.SOPInstanceUID, range(1, row["frames"] + 1), combine_segments=True,
                                                     assert_missing_frames_are_empty=True).astype(np.uint8)
            for segment in found.SegmentSequence:
                if segment.SegmentLabel == "unknown":
                    masks[masks == segment.SegmentNumber] = 255
        yield row["clip_id"], frames, masks, row


def shards(folder: Path, cache: Path) -> Iterator[Opened]:
    paths = sorted(map(str, (folder / "shards").glob("*.tar")))
    for clip in webdataset.WebDataset(paths, shardshuffle=False).decode():
        yield clip["__key__"], clip["frames.npy"], clip["masks.npy"], clip["json"]


def rows(folder: Path, cache: Path) -> Iterator[Opened]:
    found = datasets.load_dataset(str(folder), cache_dir=str(cache))
    assert list(found) == ["train"]
    for clip in found["train"]:
        frames, masks = (np.stack([np.asarray(picture) for picture in clip.pop(name)]) for name in ("frames", "masks"))
        yield clip["clip_id"], frames.reshape(*frames.shape[:3], -1), masks, clip


OPENERS = {"mp4": mp4, "nifti": nifti, "dicom": dicom, "webdataset": shards, "huggingface": rows}


def _film(path: Path, wanted: str) -> NDArray[np.uint8]:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format=wanted) for frame in file.decode(video=0)])
