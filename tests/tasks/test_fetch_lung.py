"""Lung ultrasound out of a folder as its owners lay it out: only CC BY clips come along, with their table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tasks.fetch_lung import fetch_lung
from tasks.patients import PatientParams, patient_lookup

OWNERS = ["Current location", "Filename", "Label", "License", "Probe", "DOI", "Patient ID / Name", "Effusion", "Consolidations",
          "B-lines", "A-lines", "Pleural line irregularities"]
LUNG = {"a_lines": "A-lines", "b_lines": "B-lines", "effusion": "effusion"}


def clone(folder: Path) -> Path:
    rows = [
        ("x", "Cov-one", "COVID-19", "CC BY 4.0", "convex", "10.1/a", "7", "1", "0", "1", "1", "0"),
        ("x", "Reg-two", "regular", "CC BY 2.0", "Linear", "", "8", "0", "0", "0", "n/A", "0"),
        ("x", "Pneu-three", "Bacterial pneumonia", "CC BY-NC 4.0", "convex", "", "9", "0", "0", "0", "0", "0"),
        ("x", "Reg-four", "regular", "None", "convex", "", "10", "0", "0", "0", "0", "0"),
        ("x", "Reg-five", "regular", "CC BY 4.0", "convex", "", "11", "0", "0", "0", "0", "0"),  # its file is not there
    ]
    for name in ("convex/Cov-one.mov", "linear/Reg-two.mp4", "convex/Pneu-three.gif", "convex/Reg-four.mp4"):
        path = folder / "data" / "pocus_videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with (folder / "data" / "dataset_metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([OWNERS, *rows])
    return folder


def test_only_clips_under_cc_by_come_along(tmp_path: Path) -> None:
    said = fetch_lung(tmp_path / "raw" / "lung", clone(tmp_path / "clone"))
    assert said.endswith("holds 2 clips of 2 patients, all under CC BY")
    videos = sorted((tmp_path / "raw" / "lung" / "videos").iterdir())
    assert [path.name for path in videos] == ["convex__Cov-one.mov", "linear__Reg-two.mp4"]
    assert videos[0].read_bytes() == b"convex/Cov-one.mov"
    again = fetch_lung(tmp_path / "raw" / "other", tmp_path / "raw" / "lung")  # a folder made before is a source too
    assert again.endswith("holds 2 clips of 2 patients, all under CC BY")
    assert (tmp_path / "raw/other/manifest.csv").read_bytes() == (tmp_path / "raw/lung/manifest.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["lung", "other"]

    params = PatientParams(table="manifest.csv", file_column="dst", label_column="label", labels={"covid": "abnormal"},
                           text="{probe} probe, {findings}", findings=LUNG)
    look_up = patient_lookup(tmp_path / "raw" / "lung", params)
    assert look_up("videos/convex__Cov-one.mov") == ("7", "abnormal", "convex probe, A-lines, B-lines and effusion", "")
    assert look_up("videos/linear__Reg-two.mp4") == ("8", "regular", "linear probe, no findings", "")
    assert look_up("videos/stranger.mp4") == ("", None, "", "")


def test_what_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has neither manifest"):
        fetch_lung(tmp_path / "raw", tmp_path)
    folder = clone(tmp_path / "clone")
    (folder / "data/pocus_videos/convex/Cov-one.mov").unlink()
    (folder / "data/pocus_videos/linear/Reg-two.mp4").unlink()
    with pytest.raises(ValueError, match="no clip under CC BY"):
        fetch_lung(tmp_path / "raw", folder)
    fetch_lung(tmp_path / "raw", clone(tmp_path / "second"))
    (tmp_path / "raw/videos/linear__Reg-two.mp4").unlink()
    with pytest.raises(ValueError, match="is missing"):
        fetch_lung(tmp_path / "copy", tmp_path / "raw")


def test_a_column_the_text_names_must_be_there(tmp_path: Path) -> None:
    fetch_lung(tmp_path / "raw", clone(tmp_path / "clone"))
    base = {"table": "manifest.csv", "file_column": "dst", "findings": {"oedema": "oedema"}, "text": "{site} {findings}"}
    with pytest.raises(ValueError, match="has no column oedema, site"):
        patient_lookup(tmp_path / "raw", PatientParams.model_validate(base))
