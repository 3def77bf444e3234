"""Names that lead out: manifests, records, tables, links and archives; nothing outside the root is opened or changed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hostile_corpus import dicom, nifti, png, video
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from test_hostile import SEALS, own

from tasks.checkpoints import load_checkpoint
from tasks.decoder import decoded
from tasks.fetch import fetch_hippocampus
from tasks.fetch_lung import fetch_lung
from tasks.local_copy import local_copy
from tasks.open_release import open_release
from tasks.params import DatasetParams, DecoderParams
from tasks.prepare import prepare
from tasks.profiles import apply_profiles
from tasks.readers import QuarantinedError
from tasks.store import ClipStore
from tasks.store_check import verify
from tasks.tables import stays_below, write_json
from tasks.verify import verify_tree

LEAD_OUT = ["../canary/secret.txt", "../../canary/secret.txt", "../../../canary/secret.txt", "../../../../canary/secret.txt",
            "/CANARY/secret.txt", "frames/../../../../canary/secret.txt", "./../canary/secret.txt",
            "frames//../../canary/secret.txt", "..", ".", "", "/", "secret.txt\0.json", "..\\canary\\secret.txt",
            "file:///CANARY/secret.txt", "~/../CANARY/secret.txt"]
"""CANARY stands for the absolute path of the canary's folder."""
OLD = 1_000_000_000
"""Seconds: when the canary was last read; any reading since is seen, as relatime records it."""


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A tree that nobody may touch, beside everything else of the test."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "secret.txt").write_text("a secret")
    for name, content in (("secret.mp4", video()), ("secret.png", png()), ("secret.dcm", dicom()), ("secret.nii", nifti())):
        (folder / name).write_bytes(content)
    for file in folder.iterdir():
        os.utime(file, (OLD, OLD))
    return folder


def untouched(canary: Path) -> bool:
    names = {"secret.txt", "secret.mp4", "secret.png", "secret.dcm", "secret.nii"}
    return {file.name for file in canary.iterdir()} == names and all(
        (file.stat().st_atime, file.stat().st_mtime) == (OLD, OLD) for file in canary.iterdir())


def test_the_canary_sings(canary: Path) -> None:
    """Or the other tests would hold whatever happened."""
    assert untouched(canary)
    (canary / "secret.txt").read_text()
    assert not untouched(canary)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "own"
    own(folder)
    return folder


def named(name: str, canary: Path) -> str:
    return name.replace("CANARY", str(canary).lstrip("/"))


def record(path: Path, change: Callable[[Any], None], seal: Callable[[Any], Any] = lambda tree: tree) -> None:
    """Change what a record says, its checksums with it."""
    tree = json.loads(path.read_text())
    change(tree)
    write_json(path, seal(tree))


@pytest.mark.parametrize("name", LEAD_OUT)
def test_records_that_name_files_elsewhere(whole: Path, canary: Path, tmp_path: Path, name: str) -> None:
    """Six kinds of record with each of these names, sealed with right checksums; and none of it is believed."""
    bad, folder = named(name, canary), tmp_path / "work" / "own"
    assert not stays_below(bad)

    def files(tree: Any) -> None:
        tree["files"] = {**tree["files"], bad: "0" * 64}

    def arrays(tree: Any) -> None:
        tree["attributes"]["arrays"][bad] = tree["attributes"]["arrays"].pop("frames")

    def nets(tree: Any) -> None:
        tree["nets"][bad] = tree["nets"].pop("scene")

    def sound(path: Path) -> None:
        if problems := verify_tree(path)[1]:
            raise ValueError(problems[0])

    store, checkpoint, release = (folder / part for part in ("release/clips.zarr", "checkpoint", "release"))
    kinds: list[tuple[Path, Callable[[Any], None], str, list[Callable[[], Any]]]] = [
        (store / "commits" / "00000.json", files, "commit record", [lambda: ClipStore.open(store)]),
        (store / "zarr.json", arrays, "zarr group", [lambda: ClipStore.open(store), lambda: open_release(str(release))]),
        (checkpoint / "checkpoint.json", files, "checkpoint.json", [lambda: load_checkpoint(checkpoint)]),
        (checkpoint / "checkpoint.json", nets, "checkpoint.json", [lambda: load_checkpoint(checkpoint)]),
        (release / "release.json", files, "", [lambda: open_release(str(release)), lambda: sound(release)]),
    ]
    for path, change, seal, reads in kinds:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        record(path, change, SEALS.get(seal, lambda tree: tree))
        for read in reads:
            with pytest.raises(ValueError, match=r"json|zarr") as raised:
                read()
            assert len(str(raised.value).splitlines()) == 1
        if path.is_relative_to(store):
            assert verify(store)
    (folder / "profile.yaml").write_text(json.dumps({"base": bad.removesuffix(".txt")}))
    if bad:
        with pytest.raises(ValueError, match="no other profile"):
            apply_profiles(folder / "params.yaml", [folder / "profile.yaml"])
    assert untouched(canary)


@pytest.mark.parametrize("name", [name for name in LEAD_OUT if name not in ("", ".", "..", "/") and "\0" not in name])
def test_tables_that_name_files_elsewhere(canary: Path, tmp_path: Path, name: str) -> None:
    """A data set's table is a list to look names up in; a lung table says what is copied, and is refused."""
    bad, raw = named(name, canary).replace("secret.txt", "secret.png"), tmp_path / "work" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.png").write_bytes(png())
    with (raw / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "patient"], [bad, "p1"], ["a.png", "p2"]])
    from tasks.readers import images

    options = images.Params(stills=True, table="table.csv")
    assert [source.patient for source in decoded("images", raw, options, DecoderParams())] == ["p2"]
    (raw / "videos").mkdir()
    with (raw / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["dst", "patient", "license"], [bad, "p1", "CC BY 4.0"]])
    with pytest.raises(ValueError, match=r"manifest\.csv|is missing"):
        fetch_lung(tmp_path / "work" / "out", raw)
    assert untouched(canary)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"raw"}


@pytest.mark.parametrize("reader", ["images", "video", "dicom", "nifti"])
@pytest.mark.parametrize("where", ["../../canary", "/CANARY", "inner/../../../canary", "../raw/../../canary"])
def test_options_that_name_folders_elsewhere(canary: Path, tmp_path: Path, reader: str, where: str) -> None:
    """A folder or table of another place is refused before it is looked into."""
    raw = tmp_path / "work" / "raw"
    (raw / "inner").mkdir(parents=True)
    key = "images" if reader in ("images", "nifti") else "folder"
    bad = where.replace("CANARY", str(canary).lstrip("/"))
    for option in (key, "masks", "table"):
        options = {option: bad if option != "table" else f"{bad}/secret.txt"}
        with pytest.raises(ValueError, match="leads out of the data set's folder"):
            prepare(dataset(raw, reader, options), 0, tmp_path / "out")
    assert untouched(canary)


def dataset(location: Path, reader: str, options: dict[str, Any]) -> DatasetParams:
    return DatasetParams.model_validate({
        "name": "made", "reader": reader, "location": location, "options": options, "clip_frames": 1, "frame_size": (8, 8),
        "near_duplicate": 1, "split": {"train": 0.4, "val": 0.3, "test": 0.3}})


@pytest.mark.parametrize("reader", ["images", "video", "dicom", "nifti"])
def test_links_that_lead_out(canary: Path, tmp_path: Path, reader: str) -> None:
    """Files, folders and masks that are links; pipes and devices; absolute, relative and chained ones."""
    suffix = {"images": ".png", "video": ".mp4", "dicom": ".dcm", "nifti": ".nii"}[reader]
    raw, secret = tmp_path / "work" / "raw", canary / f"secret{suffix}"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        content = {"images": png, "video": video, "dicom": dicom, "nifti": nifti}[reader]()
        if reader == "dicom":
            def change(header: Dataset, number: int = number) -> None:
                header.PatientID, header.PixelData = f"q{number}", rng.integers(0, 255, (5, 8, 8), dtype=np.uint8).tobytes()
            content = dicom(change=change)
        elif reader == "images":
            content = png(12 + number)
        elif reader == "video":
            content = video(frames=6 + number, side=16 + 16 * number)
        else:
            content = bytes(content[:-400]) + rng.integers(0, 99, 400, dtype=np.uint8).tobytes()
        (raw / f"good{number}{suffix}").write_bytes(content)
    (raw / f"absolute{suffix}").symlink_to(secret)
    (raw / f"relative{suffix}").symlink_to(f"../../canary/secret{suffix}")
    (raw / f"chained{suffix}").symlink_to(raw / f"relative{suffix}")
    (raw / f"dangling{suffix}").symlink_to(canary / "nothing")
    (raw / f"device{suffix}").symlink_to("/dev/zero")
    (raw / "folder").symlink_to(canary)
    os.mkfifo(raw / f"pipe{suffix}")
    options: dict[str, Any] = {"images": {"stills": True}, "nifti": {"images": ".", "masks": None}}.get(reader, {})
    made = prepare(dataset(raw, reader, options), 0, tmp_path / "out")
    assert made["sources_used"] == 4
    assert untouched(canary)


def test_a_dicomdir_is_no_list_of_files_to_open(canary: Path, tmp_path: Path) -> None:
    """Under its own name and another one: what it refers to is not looked for (CVE-2026-32711 was that)."""
    raw = tmp_path / "work" / "raw"
    raw.mkdir(parents=True)
    files = FileSet()
    header = pydicom.dcmread(io.BytesIO(dicom()))
    header.StudyInstanceUID = header.SeriesInstanceUID = header.SOPInstanceUID
    header.PatientName, header.StudyDate, header.StudyTime, header.StudyID = "a", "20200101", "000000", "1"
    header.SeriesNumber, header.InstanceNumber = 1, 1
    files.add(header)
    files.write(raw)
    listing = pydicom.dcmread(raw / "DICOMDIR")
    for entry in listing.DirectoryRecordSequence:
        if "ReferencedFileID" in entry:
            entry.ReferencedFileID = ["..", "..", "canary", "secret.dcm"]
    listing.save_as(raw / "DICOMDIR")
    shutil.copy(raw / "DICOMDIR", raw / "listing.dcm")
    from tasks.readers import dicom as reader

    found = {source.name: source for source in decoded("dicom", raw, reader.Params(), DecoderParams())}
    with pytest.raises(QuarantinedError):
        found["listing.dcm"].read()
    assert "DICOMDIR" not in found
    assert untouched(canary)


@pytest.mark.parametrize("name", ["../../canary/secret.txt", "a/../../../canary/new.txt", "..", "deep/../../x"])
def test_objects_of_a_bucket_that_lead_out(canary: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "find", lambda self, root, detail: {f"{root}/{name}": {"size": 1}})
    with pytest.raises(ValueError, match="is no file below a folder"):
        local_copy("memory://bucket/raw", tmp_path / "work")
    assert untouched(canary)


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "hard link", "device"])
def test_archives_that_lead_out(canary: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one archive that is unpacked, were it not the owners' but had their checksum."""
    from monai.apps import utils
    from monai.apps.datasets import DecathlonDataset

    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        names = {"up": "../../../canary/new.txt", "absolute": str(canary / "new.txt")}
        types = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
        member = tarfile.TarInfo(names.get(kind, "inside"))
        member.type = types.get(kind, tarfile.REGTYPE)
        member.linkname = str(canary / "secret.txt") if "link" in kind else ""
        tar.addfile(member, io.BytesIO(b""))
        if kind == "link":
            through = tarfile.TarInfo("inside")
            through.size = 4
            tar.addfile(through, io.BytesIO(b"evil"))
    monkeypatch.setattr(utils, "download_url", lambda url, path, **checks: shutil.copy(archive, path))
    monkeypatch.setitem(DecathlonDataset.md5, "Task04_Hippocampus", "")
    with pytest.raises(ValueError, match="data hippocampus"):
        fetch_hippocampus(tmp_path / "work" / "out")
    assert untouched(canary)
