"""An export is whole or goes on where it was killed, writes into no other folder, and equal releases give equal bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import any_release
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from models import plugin
from tasks.export import FORMATS, IDENTITY, PARTS, SUMS, export, folder_name
from tasks.open_release import Release, open_release

KINDS = plugin.kinds(FORMATS)
KILLED = Path(__file__).with_name("killed_exports.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """5 clips in 3 shards."""
    return any_release.release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def killed(made: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, KILLED, made.name, folder, *KINDS], check=True, capture_output=True, timeout=300,
                   env=os.environ | {"PYTHONPATH": str(KILLED.parents[2])})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_halfway_it_goes_on_and_ends_the_same(made: Release, killed: Path, kind: str, tmp_path: Path) -> None:
    out = Path(shutil.copytree(killed / kind, tmp_path / "killed"))
    first = {out / name for name in json.loads((out / PARTS / "000000.json").read_text())["files"]}
    assert first and not (out / SUMS).exists() and list(out.rglob("*.partial"))
    before = {path: path.stat().st_ino for path in first}
    export(made, kind, out)
    assert {path: path.stat().st_ino for path in first} == before  # what was done is not done again
    assert contents(out) == contents(export(made, kind, tmp_path / "whole"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_in_the_checksums_which_other_tools_read(made: Release, kind: str, tmp_path: Path) -> None:
    out = export(made, kind, tmp_path / "out")
    said = subprocess.run(["sha256sum", "-c", SUMS], cwd=out, capture_output=True, text=True, check=True).stdout
    assert {line.removesuffix(": OK") for line in said.splitlines()} == set(contents(out)) - {SUMS}


def test_done_again_it_writes_nothing_and_what_is_damaged_is_made_again(made: Release, tmp_path: Path,
                                                                       caplog: pytest.LogCaptureFixture) -> None:
    out = export(made, "nifti", tmp_path / "out")
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    whole = contents(out)
    export(made, "nifti", out)
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before and not caplog.messages
    victim = out / "frames" / "clip-3.nii.gz"
    victim.write_bytes(victim.read_bytes()[:-9])
    export(made, "nifti", out)
    assert contents(out) == whole and "frames/clip-3.nii.gz is not as it was exported" in caplog.text


def test_a_file_of_a_finished_part_that_is_damaged_is_made_again(made: Release, killed: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(killed / "webdataset", tmp_path / "killed"))
    (out / "shards" / "clips-000000.tar").write_bytes(b"half of it")
    (out / PARTS / "000001.json").write_bytes(b"{")
    assert contents(export(made, "webdataset", out)) == contents(export(made, "webdataset", tmp_path / "whole"))


def test_folders_that_are_something_else_are_left_alone(made: Release, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"mine: is there already and is no export of cinefab; give another --out"):
        export(made, "nifti", tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    out = export(made, "nifti", tmp_path / "out")
    before = contents(out)
    with pytest.raises(ValueError, match="of wires@v3 as nifti, as it was before, not of this release as dicom"):
        export(made, "dicom", out)
    relicensed = any_release.release(tmp_path / "relicensed", about={"licence": "MIT"})
    with pytest.raises(ValueError, match="as it was before, not of this release as nifti; give another --out or delete it"):
        export(relicensed, "nifti", out)
    (out / IDENTITY).write_text("[]")
    with pytest.raises(ValueError, match="give another --out or delete it"):
        export(made, "nifti", out)
    assert contents(out) == before | {IDENTITY: b"[]"}
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is there already"):
        export(made, "nifti", tmp_path / "file")


def test_what_other_code_exported_is_made_again(made: Release, tmp_path: Path) -> None:
    out = export(made, "nifti", tmp_path / "out")
    whole = contents(out)
    (out / IDENTITY).write_text((out / IDENTITY).read_text().replace('"mark": "', '"mark": "0'))
    before = (out / "frames" / "clip-0.nii.gz").stat().st_ino
    assert contents(export(made, "nifti", out)) == whole
    assert (out / "frames" / "clip-0.nii.gz").stat().st_ino != before


def test_an_unknown_format_and_a_missing_library_are_one_line(made: Release, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose one of dicom, huggingface, mp4, nifti, webdataset"):
        export(made, "avi", tmp_path / "out")
    monkeypatch.delitem(sys.modules, "tasks.exports.webdataset", raising=False)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ValueError, match=r"webdataset needs webdataset; install it with pip install 'cinefab\[export\]'"):
        export(made, "webdataset", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_lead_elsewhere_are_refused(made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = open_release(made.name)
    hostile.ids = ("../../outside", *hostile.ids[1:])
    with pytest.raises(ValueError, match=r"clip_id '../../outside' cannot be a file's name"):
        export(hostile, "nifti", tmp_path / "out")
    hostile.facts["version"] = "../v1"
    with pytest.raises(ValueError, match=r"'../v1' cannot be a folder's name; give --out"):
        folder_name(hostile, "nifti")
    assert not any(tmp_path.iterdir())


def test_a_damaged_release_is_not_exported(made: Release, tmp_path: Path) -> None:
    any_release.release(tmp_path / "release")
    shard = next((tmp_path / "release" / "clips.zarr" / "frames").glob("c.1.*"))
    content = bytearray(shard.read_bytes())
    content[60] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="checksum of the clip at place"):
        export(open_release(str(tmp_path / "release")), "nifti", tmp_path / "out")
    assert not (tmp_path / "out" / SUMS).exists()


def test_the_command(made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["export", made.name, "nifti"])
    assert said.exit_code == 0 and "data/exports/wires-v3-nifti" in said.output
    assert (tmp_path / "data" / "exports" / "wires-v3-nifti" / SUMS).is_file()
