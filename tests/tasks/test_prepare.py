"""Prepare on a messy folder: what is broken is quarantined, nobody leaks, a killed run resumes, a second one does nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from models.clip import UNKNOWN
from tasks.find_source import find_source
from tasks.params import DatasetParams
from tasks.prepare import prepare
from tasks.readers import QuarantinedError
from tasks.records import ClipRecord, QuarantineRecord
from tasks.split import check_no_leak
from tasks.store import ClipStore
from tasks.store_check import verify
from tasks.tables import read_table

SAMPLES = os.environ.get("CINEFAB_SAMPLES")
PATIENTS = 10


def dataset(location: Path, **changed: Any) -> DatasetParams:
    base = {
        "name": "made", "reader": "images", "location": location, "classes": ["lesion"],
        "clip_frames": 4, "frame_size": (16, 16), "shard_clips": 4, "max_file_mb": 0.1, "near_duplicate": 0.95,
        "annotated_patients": 3,
        "options": {"images": "img", "masks": "msk", "patient_pattern": r"img/(?P<patient>[a-z]+\d+)_(?P<label>\w+)"},
        "split": {"train": 0.5, "val": 0.2, "test": 0.3},
    }
    return DatasetParams.model_validate({**base, **changed})


def write_clip(root: Path, name: str, seed: int, frames: int = 9, mask: int = 1) -> None:
    rng = np.random.default_rng(seed)
    for folder in ("img", "msk"):
        (root / folder / name).mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(root / "img" / name / f"{number}.png")
        labels = np.zeros((16, 16), np.uint8)
        labels[4:8, 4 + number % 4 : 8 + number % 4] = mask
        Image.fromarray(labels).save(root / "msk" / name / f"{number}.png")


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good patients of two clips each, a stolen clip, and one file of every broken kind."""
    root = tmp_path_factory.mktemp("messy")
    for patient in range(PATIENTS):
        write_clip(root, f"p{patient}_sick", patient)
    shutil.copytree(root / "img" / "p3_sick", root / "img" / "thief1_sick")
    for file in (root / "img" / "thief1_sick").iterdir():  # p3's frames, darker, without masks
        Image.fromarray((np.asarray(Image.open(file)) * 0.8 + 5).astype(np.uint8)).save(file)
    shutil.copytree(root / "img" / "p4_sick", root / "img" / "zcopy1_sick")
    shutil.copytree(root / "msk" / "p4_sick", root / "msk" / "zcopy1_sick")
    write_clip(root, "broken1_x", 50)
    content = (root / "img" / "broken1_x" / "2.png").read_bytes()
    (root / "img" / "broken1_x" / "2.png").write_bytes(content[:50])
    write_clip(root, "empty1_x", 51)
    (root / "img" / "empty1_x" / "1.png").write_bytes(b"")
    write_clip(root, "label1_x", 52, mask=3)
    write_clip(root, "short1_x", 53, frames=1)
    write_clip(root, "nobody", 54)
    write_clip(root, "flat1_x", 55)
    for file in (root / "img" / "flat1_x").iterdir():
        Image.new("L", (16, 16), 7).save(file)
    (root / "img" / "large1_x").mkdir()
    large = np.random.default_rng(1).integers(0, 255, (400, 400), dtype=np.uint8)
    Image.fromarray(large).save(root / "img" / "large1_x" / "0.png")
    return root


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(messy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(dataset(messy), 7, out)
    return out


def name_of(digest: str, messy: Path) -> str:
    """The folder of the last source with this digest; a copy has that of what it is a copy of."""
    return find_source(digest, dataset(messy))[-1].parent.name


def test_every_broken_file_has_its_reason_and_the_rest_is_there(made: Path, messy: Path) -> None:
    refused = {record.file: record.reason for record in read_table(made / "quarantine.parquet", QuarantineRecord)}
    reasons = {name_of(digest, messy): reason for digest, reason in refused.items()}
    victim = next(record.source for record in read_table(made / "manifest.parquet", ClipRecord) if record.patient == "p4")
    expected = {
        "broken1": "picture 2 cannot be read", "empty1": "is empty", "label1": "labels [3]", "short1": "has 1 frames",
        "nobody": "has no patient", "flat1": "is constant", "large1": "larger than dataset.max_file_mb",
        "zcopy1": f"repeats the pixels of {victim[:16]}; and so on, 2 clips in all",
    }
    assert {name.split("_")[0] for name in reasons} == set(expected)
    for name, reason in reasons.items():
        assert expected[name.split("_")[0]] in reason, (name, reason)
    records = read_table(made / "manifest.parquet", ClipRecord)
    assert {record.patient for record in records} == {f"p{number}" for number in range(PATIENTS)} | {"thief1"}
    assert len(records) == 2 * (PATIENTS + 1)
    assert {record.label for record in records} == {"sick"}


def test_the_store_holds_the_pixels_the_manifest_names(made: Path) -> None:
    store, records = ClipStore.open(made / "clips.zarr"), read_table(made / "manifest.parquet", ClipRecord)
    assert list(store.ids) == [record.clip_id for record in records]
    assert verify(made / "clips.zarr") == []
    assert [record.first_frame for record in records if record.patient == "p0"] == [0, 5]
    rng = np.random.default_rng(0)
    frames = np.stack([rng.integers(0, 255, (16, 16), dtype=np.uint8) for _ in range(9)])
    row = next(number for number, record in enumerate(records) if record.patient == "p0" and record.first_frame == 5)
    values = frames[5:9].astype(float)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = ((values - low) / (high - low) * 255).clip(0, 255)
    np.testing.assert_allclose(store.load([row])["frames"][0, ..., 0], expected, atol=0.51)


def test_patients_split_whole_and_the_thief_goes_with_the_victim(made: Path) -> None:
    records = read_table(made / "manifest.parquet", ClipRecord)
    check_no_leak(records)
    by_patient = {record.patient: record for record in records}
    assert by_patient["thief1"].group == by_patient["p3"].group
    assert by_patient["thief1"].split == by_patient["p3"].split
    assert len({record.group for record in records}) == PATIENTS
    assert {record.split for record in records} == {"train", "val", "test"}


def test_only_the_annotated_training_patients_keep_masks(made: Path) -> None:
    records, store = read_table(made / "manifest.parquet", ClipRecord), ClipStore.open(made / "clips.zarr")
    masks = store.load(range(len(store)))["masks"]
    for record, mask in zip(records, masks, strict=True):
        assert record.annotated == (mask != UNKNOWN).all() == (not (mask == UNKNOWN).any())
        assert record.patient == "thief1" or record.annotated or record.split == "train"
    assert len({record.patient for record in records if record.split == "train" and record.annotated}) == 3


def test_the_summary_counts_what_the_tables_hold(made: Path, messy: Path) -> None:
    summary, records = prepare(dataset(messy), 7, made), read_table(made / "manifest.parquet", ClipRecord)
    assert (summary["sources"], summary["sources_used"], summary["quarantined"]) == (PATIENTS + 9, PATIENTS + 1, 8)
    assert summary["clips"] == len(records) == sum(split["clips"] for split in summary["splits"].values())
    assert summary["patients"] == sum(split["patients"] for split in summary["splits"].values()) == PATIENTS + 1
    for name, counts in summary["splits"].items():
        assert counts["annotated_clips"] == sum(record.annotated for record in records if record.split == name)
    assert summary["mask_pixel_shares"] == pytest.approx({"background": 15 / 16, "lesion": 1 / 16})
    assert sum(summary["quarantine"].values()) == 8


def test_again_it_does_nothing_and_elsewhere_the_same_bytes(made: Path, messy: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    prepare(dataset(messy), 7, made)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before
    shutil.copytree(messy, tmp_path / "moved")
    prepare(dataset(tmp_path / "moved"), 7, tmp_path / "out")
    assert digest(tmp_path / "out") == digest(made)


def test_a_killed_run_keeps_its_shards_and_ends_the_same(made: Path, messy: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = ClipStore.write_shard, []

    def killed_at_the_third(self: ClipStore, shard: int, *rest: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        return write(self, shard, *rest)

    monkeypatch.setattr(ClipStore, "write_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset(messy), 7, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    first, written = written, []
    monkeypatch.setattr(ClipStore, "write_shard", lambda self, *rest: (written.append(rest[0]), write(self, *rest))[1])
    prepare(dataset(messy), 7, tmp_path)
    assert first == [0, 1]
    assert written == [2, 3, 4, 5]
    assert digest(tmp_path) == digest(made)


def test_another_seed_splits_otherwise_and_a_new_file_is_seen(messy: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(messy, root)
    splits = {}
    for seed in (0, 1):
        prepare(dataset(root), seed, tmp_path / "out")
        splits[seed] = [record.split for record in read_table(tmp_path / "out" / "manifest.parquet", ClipRecord)]
    assert splits[0] != splits[1]
    write_clip(root, "p99_new", 99)
    assert prepare(dataset(root), 1, tmp_path / "out")["patients"] == PATIENTS + 2
    assert verify(tmp_path / "out" / "clips.zarr") == []


@pytest.mark.parametrize(("changed", "message"), [
    ({"location": Path("nowhere")}, "dataset.location: nowhere does not exist"),
    ({"reader": "nifti", "options": {}}, "holds nothing that reader nifti can read"),
    ({"clip_frames": 100}, r"none of 19 files is usable, e.g. [0-9a-f]{16} picture 2 cannot be read.*`cinefab source"),
    ({"near_duplicate": 0.0001}, "dataset.split: 1 patient groups cannot fill 3 splits"),
    ({"annotated_patients": 50}, r"annotated_patients is 50, but only \d training patients have masks"),
])
def test_what_stops_the_run_says_so_in_one_line(messy: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        prepare(dataset(**{"location": messy, **changed}), 0, tmp_path)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, QuarantinedError)
    assert not (tmp_path / "summary.json").exists()


def test_clips_of_another_site_are_trained_on_without_their_label(tmp_path: Path) -> None:
    """They keep their words, where the site is told, and in the test split their label."""
    lines = ["file,patient,grade,hospital"]
    for number in range(12):
        write_clip(tmp_path, f"c{number}", number, frames=4)
        lines.append(f"img/c{number},p{number},{'ab'[number % 2]},{'far' if number < 6 else 'near'}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    options = {"images": "img", "masks": "msk", "table": "table.csv", "label_column": "grade", "site_column": "hospital",
               "text": "a scan at {hospital}"}
    summary = prepare(dataset(tmp_path, options=options, out_domain=["far"], annotated_patients=None), 0, tmp_path / "out")
    records = read_table(tmp_path / "out" / "manifest.parquet", ClipRecord)
    assert summary["sites"] == {"far": 6, "near": 6} and len({record.split for record in records}) == 3
    for record in records:
        hidden = record.split == "train" and record.site == "far"
        assert record.label == (None if hidden else "ab"[int(record.patient[1:]) % 2])
        assert record.text == f"a scan at {record.site}"
    assert {record.site for record in records if record.split == "train"} == {"far", "near"}
    with pytest.raises(ValueError, match=r"dataset\.out_domain: mars is no site of a clip; there are far, near"):
        prepare(dataset(tmp_path, options=options, out_domain=["mars"]), 0, tmp_path / "no")


def test_a_strangers_videos_and_dicom_files(tmp_path: Path) -> None:
    """No table, no masks, no classes: every file a patient of its own, names kept out."""
    rng = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    for number in range(6):
        with av.open(str(tmp_path / "videos" / f"Mr_Smith_{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in np.kron(rng.integers(0, 255, (12, 6, 8)), np.ones((8, 8))).astype(np.uint8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
            container.mux(stream.encode())
    strange = {"options": {}, "classes": [], "annotated_patients": None}
    summary = prepare(dataset(tmp_path / "videos", reader="video", **strange), 0, tmp_path / "v")
    assert summary["clips"] == 18
    assert summary["patients"] == 6
    assert b"Smith" not in (tmp_path / "v" / "manifest.parquet").read_bytes()
    assert not any(record.annotated for record in read_table(tmp_path / "v" / "manifest.parquet", ClipRecord))

    (tmp_path / "dicom").mkdir()
    for name in ("examples_ybr_color.dcm", "rtdose.dcm", "MR_truncated.dcm"):
        shutil.copyfile(str(get_testdata_file(name, download=False)), tmp_path / "dicom" / name)
    both = {"train": 0.5, "val": 0, "test": 0.5}
    entry = dataset(tmp_path / "dicom", reader="dicom", split=both, max_file_mb=100, **{**strange, "options": {"blank": []}})
    summary = prepare(entry, 0, tmp_path / "d")
    assert (summary["sources"], summary["sources_used"], summary["quarantined"]) == (3, 2, 1)
    assert summary["clips"] == 30 // 4 + 15 // 4


@pytest.mark.skipif(not SAMPLES, reason="CINEFAB_SAMPLES is not set: no real data here")
def test_real_hippocampus(tmp_path: Path) -> None:
    root = Path(SAMPLES or "") / "hippocampus_mri"
    some = tmp_path / "some"
    for folder in ("images", "labels"):
        (some / folder).mkdir(parents=True)
        for file in sorted((root / folder).glob("*.nii.gz"))[:24]:
            shutil.copyfile(file, some / folder / file.name)
    entry = dataset(some, reader="nifti", options={}, classes=["anterior", "posterior"], clip_frames=8, stride=2,
                    frame_size=(48, 32), fit="stretch", max_file_mb=50, annotated_patients=5)
    summary = prepare(entry, 0, tmp_path / "out")
    assert (summary["sources"], summary["sources_used"], summary["quarantined"]) == (24, 24, 0)
    assert summary["groups"] == summary["patients"] == 24
    assert summary["splits"]["train"]["annotated_patients"] == 5
    assert 0.01 < summary["mask_pixel_shares"]["anterior"] < 0.1
    frames = ClipStore.open(tmp_path / "out" / "clips.zarr").load([0])["frames"]
    assert frames.shape == (1, 8, 48, 32, 1)
    assert frames.std() > 30
