"""A stranger's own files, from a folder to a release, by editing one entry of params.yaml."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import yaml
import zarr
from conftest import checkout, environment
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

FILES, FRAMES, SIZE = 8, 12, 40


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy film of a bright bar that moves, and where the bar is."""
    rng = np.random.default_rng(seed)
    film = rng.integers(20, 60 + 5 * seed, (FRAMES, SIZE, SIZE)).astype(np.uint8)
    masks = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    for frame in range(FRAMES):
        left = 4 + (seed * 3 + frame) % 20
        masks[frame, 8 + seed : 20 + seed, left : left + 6] = 255
    film[masks > 0] = 220
    return film, masks


def write_masks(folder: Path, masks: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"{number:03d}.png")


def write_mp4(path: Path, film: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for picture in film:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_dicom(path: Path, film: np.ndarray, patient: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundMultiFrameImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.PatientID, header.PatientName, header.Modality = patient, "PLANTED^NAME", "US"
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.NumberOfFrames, header.Rows, header.Columns = len(film), SIZE, SIZE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.FrameTime = "100"
    header.PixelData = film.tobytes()
    pydicom.dcmwrite(path, header, enforce_file_format=True)


@pytest.mark.parametrize("kind", ["video", pytest.param("dicom", marks=pytest.mark.slow)])
def test_from_a_folder_to_a_release(kind: str, api: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for number in range(FILES):
        film, masks = scene(number)
        write_masks(theirs / "masks" / f"P{number}_scan", masks)
        if kind == "video":
            write_mp4(theirs / f"P{number}_scan.mp4", film)
        else:
            write_dicom(theirs / f"P{number}_scan.dcm", film, f"PLANTED-ID-{number}")
    (theirs / f"P9_broken.{'mp4' if kind == 'video' else 'dcm'}").write_bytes(b"not a film at all")

    folder = checkout(tmp_path / "checkout")
    tree: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())
    tree["dataset"] = {
        "name": "theirs",
        "reader": kind,
        "location": str(theirs),
        "options": {"masks": "masks", **({"patient_pattern": "(?P<patient>P[0-9]+)_"} if kind == "video" else {})},
        "classes": ["bar"],
        "clip_frames": 4,
        "stride": 1,
        "frame_size": [16, 16],
        "split": {"train": 0.5, "val": 0.1, "test": 0.4},
        "shard_clips": 4,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    done = subprocess.run(
        ["dvc", "repro", "release"], cwd=folder, env=environment(api), capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    manifest = pq.read_table(folder / "data" / "prepared" / "manifest.parquet").to_pylist()
    assert len(manifest) == FILES * FRAMES // 4
    assert len({row["patient"] for row in manifest}) == FILES
    refused = pq.read_table(folder / "data" / "prepared" / "quarantine.parquet").to_pylist()
    assert len(refused) == 1
    broken, = theirs.glob("P9_broken.*")
    assert refused[0]["file"] == hashlib.sha256(broken.read_bytes()).hexdigest()
    clips = zarr.open_group(folder / "data" / "release" / "clips.zarr", mode="r")
    assert clips["frames"].shape[0] > 0
    assert set(np.unique(clips["masks"][:])) <= {0, 1}
    tables = [str(pq.read_table(path).to_pylist()) for path in (folder / "data").rglob("*.parquet")]
    texts = [path.read_text() for path in (folder / "data").rglob("*") if path.suffix in {".json", ".md", ".csv"}]
    assert not [text for text in tables + texts if "PLANTED" in text]
