"""CITATION.cff and croissant.json: valid by the tools that read them, and what they say is what the files say."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import absl.logging
import any_release
import mlcroissant
import pyarrow.parquet as pq
import pytest
import tiny_line
import yaml
from pydantic import ValidationError

from tasks.export import export
from tasks.params import Params, ReleaseParams
from tasks.release import TABLES, release
from tasks.tables import file_digest, read_json

# mlcroissant's logger closes its stream when another library (Prefect) sets up logging: not the one that pytest captures
absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)

FORMATS = ["dicom", "huggingface", "mp4", "nifti", "webdataset"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*where: object) -> None:
        raise AssertionError(f"phones home: {where}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    make(data, tree, tree.release)
    return data, tree


def make(data: Path, tree: Params, params: ReleaseParams) -> Path:
    release(params, tree.dataset, tree.audit,
            *(data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release")))
    return data / "release"


def valid(path: Path) -> dict[str, Any]:
    """CITATION.cff, checked by check-jsonschema against the schema of its makers, which it has with it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", path]
    subprocess.run(command, check=True, capture_output=True)
    told: dict[str, Any] = yaml.safe_load(path.read_text())
    return told


def records(dataset: mlcroissant.Dataset, name: str) -> list[dict[str, Any]]:
    """Rows without the record set's name in front of every column, bytes as text."""
    def plain(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else [*map(plain, value)] if isinstance(value, list) else value

    return [{key.removeprefix(f"{name}/"): plain(value) for key, value in row.items()} for row in dataset.records(name)]


def test_a_release_is_described_and_its_tables_are_read_through_it(line: tuple[Path, Params]) -> None:
    folder = line[0] / "release"
    dataset = mlcroissant.Dataset(folder / "croissant.json")
    assert not dataset.metadata.issues.errors
    assert dataset.metadata.name == "tiny-wires" and "SYNTHETIC" in dataset.metadata.description
    for table in TABLES:
        own = pq.read_table(folder / table).to_pylist()
        read = records(dataset, table.removesuffix(".parquet"))
        assert [{key: value for key, value in row.items() if value is not None} for row in own] == [
            {key: value for key, value in row.items() if value is not None and value == value} for row in read]


def test_its_files_have_the_checksums_it_says(line: tuple[Path, Params]) -> None:
    folder = line[0] / "release"
    described = json.loads((folder / "croissant.json").read_text())
    files = [one for one in described["distribution"] if one["@type"] == "cr:FileObject"]
    assert len(files) == 6
    for one in files:
        assert one["sha256"] == file_digest(folder / one["contentUrl"])
        assert one["contentSize"] == f"{(folder / one['contentUrl']).stat().st_size} B"
    said = read_json(folder / "release.json")["files"]
    assert said["croissant.json"] == file_digest(folder / "croissant.json")
    assert said["CITATION.cff"] == file_digest(folder / "CITATION.cff")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_is_described_and_its_manifest_is_read_through_it(kind: str, tmp_path: Path) -> None:
    made = any_release.release(tmp_path / "release")
    out = export(made, kind, tmp_path / "out")
    dataset = mlcroissant.Dataset(out / "croissant.json")
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    read = records(dataset, "manifest")
    assert [row["clip_id"] for row in read] == list(made.ids)
    assert [row["digest"] for row in read] == made.digests
    assert [row["text"] or "" for row in read] == list(made.texts)  # an empty cell of a CSV is none
    assert {(out / row["file"]).is_file() for row in read} == {True}
    described = json.loads((out / "croissant.json").read_text())["distribution"]
    sets = [one["includes"] for one in described if one["@type"] == "cr:FileSet"]
    assert {path for glob in sets for path in out.glob(glob)} == {
        out / row[name] for row in read for name in ("file", "mask_file") if isinstance(row[name], str) and row[name]}
    assert valid(out / "CITATION.cff")["license"] == "CC-BY-4.0"


def test_a_release_of_nobody_still_has_a_valid_citation(line: tuple[Path, Params]) -> None:
    told = valid(line[0] / "release" / "CITATION.cff")
    assert told["authors"] == [{"name": "makers not stated"}] and (told["version"], told["type"]) == ("v1", "dataset")
    assert "license" not in told and "SYNTHETIC" in told["abstract"] and "simulated data" in told["abstract"]


def test_who_is_named_in_the_parameters_is_named_everywhere(line: tuple[Path, Params], tmp_path: Path) -> None:
    data, tree = line
    about = {name: value for name, value in any_release.ABOUT.items() if name != "modality"}
    named = ReleaseParams.model_validate(tree.release.model_dump() | about)
    shutil.copytree(data, tmp_path / "data")
    folder = make(tmp_path / "data", tree, named)
    told = valid(folder / "CITATION.cff")
    assert told["authors"] == [{"family-names": "Doe", "given-names": "Jane"}, {"name": "A Hospital"}]
    assert (told["title"], told["url"], told["license"]) == (about["title"], about["url"], "CC-BY-4.0")
    assert str(told["date-released"]) == about["released"]
    card = (folder / "README.md").read_text()
    assert "Licence of this release: CC-BY-4.0." in card
    reference = f"Doe, Jane; A Hospital (2026). {about['title']}, v1. Synthetic data set. {about['url']}"
    assert f"> {reference}\n" in card
    dataset = mlcroissant.Dataset(folder / "croissant.json")
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    assert read_json(folder / "release.json")["about"] == about


@pytest.mark.parametrize(("field", "value"), [
    ("licence", "CC BY 4.0"), ("licence", "MIT OR Apache-2.0"), ("url", "example.org"), ("modality", "ultrasound"),
    ("released", "soon"), ("authors", [""]),
])
def test_a_wrong_word_is_refused_before_any_work(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ReleaseParams.model_validate({"name": "n", "version": "v1", "source": "s", field: value})
