"""Every export is opened by the library its users would use, and gives the release's clips, each with its own words."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import any_release
import av
import nibabel
import numpy as np
import pydicom
import pytest
import tiny_line
import yaml
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.dataset import Dataset
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
)

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # before datasets is imported

import as_users_open
import datasets

from models import plugin
from tasks.export import FORMATS, export
from tasks.exports import dicom as dicom_format
from tasks.exports import mp4 as film_format
from tasks.open_release import Release, open_release
from tasks.readers.nifti import load, planes
from tasks.release import release
from tasks.store import clip_digest

KINDS = sorted(as_users_open.OPENERS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*where: object) -> None:
        raise AssertionError(f"an export phones home: {where}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The tiny line's, grey, and one of colour."""
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    release(tree.release, tree.dataset, tree.audit,
            *(data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release")))
    return {"grey": open_release(str(data / "release")), "colour": any_release.release(tmp_path_factory.mktemp("colour"))}


@pytest.fixture(scope="module")
def exports(releases: dict[str, Release], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("exports")
    return {(name, kind): export(one, kind, folder / f"{name}-{kind}") for name, one in releases.items() for kind in KINDS}


def test_every_format_has_its_opener() -> None:
    assert plugin.kinds(FORMATS) == KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mp4"])
@pytest.mark.parametrize("name", ["grey", "colour"])
def test_pixels_and_words_are_the_release_s(releases: dict[str, Release], exports: dict[tuple[str, str], Path], name: str,
                                            kind: str, tmp_path: Path) -> None:
    """Shuffle-and-check: the hash of each exported clip's own pixels finds its row in the release."""
    made, folder = releases[name], exports[name, kind]
    known = {row["digest"]: row for row in made.manifest.to_pylist()}
    opened = list(as_users_open.OPENERS[kind](folder, tmp_path))
    assert [clip for clip, *_ in opened] == list(made.ids)
    for clip, frames, masks, said in opened:
        digest = clip_digest({"frames": frames, "masks": masks})
        assert said["digest"] == digest
        assert {key: said[key] for key in ("clip_id", "label", "text", "patients", "classes", "generator", "condition_id")} == {
            key: known[digest][key] for key in ("clip_id", "label", "text", "patients", "classes", "generator", "condition_id")}
        assert clip == said["clip_id"]
        assert said.get("split", "train") == "train"  # datasets has it as the split's name


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_says_what_the_release_s_says(releases: dict[str, Release], exports: dict[tuple[str, str], Path],
                                                   kind: str) -> None:
    made, rows = releases["colour"], as_users_open.manifest(exports["colour", kind])
    own = made.manifest.to_pylist()
    assert [{key: row[key] for key in own[0]} for row in rows] == own
    assert {row["split"] for row in rows} == {"train"}
    assert {(exports["colour", kind] / row["file"]).is_file() for row in rows} == {True}


@pytest.mark.parametrize("name", ["grey", "colour"])
def test_films_state_their_loss_and_masks_have_none(releases: dict[str, Release], exports: dict[tuple[str, str], Path],
                                                    name: str, tmp_path: Path) -> None:
    made, folder = releases[name], exports[name, "mp4"]
    said, measured = [], []
    for row, (_, frames, masks, cells) in enumerate(as_users_open.mp4(folder, tmp_path)):
        true = made.load([row])
        np.testing.assert_array_equal(masks, true["masks"][0])
        error = np.mean((frames.astype(float) - true["frames"][0]) ** 2)
        said.append(float(cells["psnr_db"]))
        measured.append(10 * np.log10(255**2 / error))
    # grey films are measured in grey: colours that a player makes of them may round once more
    np.testing.assert_allclose(said, measured, atol=0.01 if name == "colour" else 1)
    assert min(said) > (40 if name == "grey" else 12)  # noise of 9 x 7 pixels whose colours are halved is the worst there is
    card = (folder / "README.md").read_text()
    assert f"{np.median(said):.1f} dB in the median clip, {min(said):.1f} dB in the worst" in card
    assert f"n = {len(said)} clips" in card


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_s_own_example_opens_it(releases: dict[str, Release], exports: dict[tuple[str, str], Path], kind: str,
                                         tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, clip = exports["colour", kind], releases["colour"].ids[0]
    snippet = (folder / "README.md").read_text().split("```python\n")[-1].split("```")[0]
    snippet = snippet.replace("CLIP_ID", clip).replace("FOLDER", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    shown = names["clip"]["masks.npy"] if kind == "webdataset" else names.get("masks", names.get("labels"))
    masks = releases["colour"].load([any_release.CLIPS - 1 if kind == "webdataset" else 0])["masks"][0]
    if kind == "nifti":
        masks = masks[:, ::-1].transpose(2, 1, 0)[:, :, None]
    np.testing.assert_array_equal(shown, masks)


def test_psnr() -> None:
    black = np.zeros((2, 3), np.uint8)
    assert film_format.psnr_db(black, black) == float("inf")
    assert film_format.psnr_db(black, black + 255) == 0
    assert film_format.psnr_db(black, black + 1) == pytest.approx(48.1308, abs=1e-4)


def test_without_h264_films_are_mpeg4(releases: dict[str, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4", "ffv1"})
    folder = export(releases["grey"], "mp4", tmp_path / "films")
    with av.open(str(folder / as_users_open.manifest(folder)[0]["file"])) as film:
        assert film.streams.video[0].codec_context.name == "mpeg4"
    assert all(float(row["psnr_db"]) > 30 for row in as_users_open.manifest(folder))


def test_a_nifti_read_by_our_reader_is_the_clip(releases: dict[str, Release], tmp_path: Path) -> None:
    made = any_release.release(tmp_path / "volumes", {"spacing_mm": [3.0, 0.5, 0.25]})
    folder = export(made, "nifti", tmp_path / "out")
    image = nibabel.load(folder / "masks" / "clip-0.nii.gz")
    assert image.shape == (any_release.WIDTH, any_release.HEIGHT, any_release.FRAMES)
    np.testing.assert_array_equal(planes(load(folder / "masks" / "clip-0.nii.gz"), 2), made.load([0])["masks"][0])
    np.testing.assert_array_equal(image.affine, np.diag([0.25, 0.5, 3, 1]))
    assert image.header.get_zooms() == (0.25, 0.5, 3) and image.header.get_xyzt_units()[0] == "mm"


def test_a_nifti_of_moments_says_what_is_not_known(exports: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    image = nibabel.load(exports["colour", "nifti"] / "frames" / "clip-0.nii.gz")
    assert image.shape == (any_release.WIDTH, any_release.HEIGHT, 1, any_release.FRAMES, 3)
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert image.header.get_xyzt_units() == ("unknown", "unknown")
    assert "does not know how large a pixel is" in (exports["colour", "nifti"] / "README.md").read_text()
    timed = export(any_release.release(tmp_path / "timed", {"frame_time_ms": 40.0}), "nifti", tmp_path / "out")
    header = nibabel.load(timed / "frames" / "clip-0.nii.gz").header
    assert header.get_zooms()[3] == 40 and header.get_xyzt_units()[1] == "msec"


@pytest.mark.parametrize(("name", "about", "clip", "stored"), [
    ("grey", {}, {}, MultiFrameGrayscaleByteSecondaryCaptureImageStorage),
    ("colour", {"modality": "XA"}, {"frame_time_ms": 40.0, "spacing_mm": [None, 0.5, 0.25]},
     MultiFrameTrueColorSecondaryCaptureImageStorage),
    ("colour", {"modality": "US"}, {}, UltrasoundMultiFrameImageStorage),
])
def test_dicom_is_valid_and_says_it_is_synthetic(releases: dict[str, Release], name: str, about: dict[str, str],
                                                 clip: dict[str, Any], stored: str, tmp_path: Path) -> None:
    made = releases["grey"] if name == "grey" else any_release.release(tmp_path / "release", clip, about)
    folder = export(made, "dicom", tmp_path / "out")
    files = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    assert {file.SOPClassUID for file in files} == {stored, SegmentationStorage}
    for file in files:
        assert file.SyntheticData == "YES" and file.PatientName.family_name == "SYNTHETIC"
        assert _lacking(file) == []
    assert len({file.SOPInstanceUID for file in files}) == len(files)
    if clip:
        assert float(files[0].FrameTime) == 40 and [float(one) for one in files[0].PixelSpacing] == [0.5, 0.25]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: apt-get install dicom3tools")
@pytest.mark.parametrize("name", ["grey", "colour"])
def test_a_dicom_validator_finds_no_error(exports: dict[tuple[str, str], Path], name: str) -> None:
    """But that it is older (2022) than the attribute Synthetic Data, and does not know it."""
    for path in exports[name, "dicom"].rglob("*.dcm"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        errors = [line for line in said.splitlines() if line.startswith("Error") and "(0x0008,0x001c)" not in line]
        assert errors == [], said
        assert any(word in said for word in ("MultiframeGrayscaleByteSCImage", "USMultiFrameImage", "Segmentation"))


def test_what_is_lacking_is_found(exports: dict[tuple[str, str], Path]) -> None:
    """The check above is no rubber stamp."""
    file = pydicom.dcmread(next((exports["grey", "dicom"] / "frames").iterdir()))
    del file.Modality, file.NumberOfFrames
    assert _lacking(file) == ["Modality", "NumberOfFrames"]


def test_equal_clips_have_equal_uids_and_others_other_ones(releases: dict[str, Release], exports: dict[tuple[str, str], Path],
                                                           tmp_path: Path) -> None:
    again = as_users_open.manifest(export(releases["grey"], "dicom", tmp_path / "again"))
    first = as_users_open.manifest(exports["grey", "dicom"])
    assert [row["sop_instance_uid"] for row in first] == [row["sop_instance_uid"] for row in again]
    assert len({row["sop_instance_uid"] for row in first}) == len(first)
    assert dicom_format.NO_DATE in str(pydicom.dcmread(tmp_path / "again" / again[0]["mask_file"]).ContentDate)


def test_the_hub_s_card_has_front_matter(exports: dict[tuple[str, str], Path]) -> None:
    for name, licence in (("grey", "other"), ("colour", "cc-by-4.0")):
        _, matter, card = (exports[name, "huggingface"] / "README.md").read_text().split("---\n", 2)
        assert yaml.safe_load(matter)["license"] == licence
        assert card.strip().startswith("One split")


def _lacking(file: Dataset) -> list[str]:
    """Attributes of type 1 in mandatory modules of PS3.3, at the top level, that are not there or empty: highdicom's tables."""
    modules = [one["key"] for one in get_iod_module_map()[get_sop_class_iod_map()[file.SOPClassUID]] if one["usage"] == "M"]
    attributes = [one for module in modules for one in get_module_attribute_map()[module]]
    wanted = {one["keyword"] for one in attributes if one["type"] == "1" and not one["path"]}
    assert len(wanted) >= 15
    return sorted(name for name in wanted if not file.get(name) and file.get(name) != 0)
