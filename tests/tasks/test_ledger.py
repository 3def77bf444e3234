"""A stage's ledger against damage, and its lock against a second writer."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ledger import LEDGER, ledger_problems, one_writer, writing
from tasks.tables import read_sealed, write_sealed


def stage(folder: Path) -> None:
    with writing(folder):
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        for name in ("table.parquet", "runs/0.json", "page.html"):
            if not (folder / name).exists():
                (folder / name).write_text(f"what {name} says")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "stage"
    stage(folder)
    return folder


def test_it_lists_what_has_no_record_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with writing(folder):
        for name in ("table.parquet", "clips.zarr/zarr.json", ".evidence/0.safetensors", ".table.parquet.1.partial"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    assert set(read_sealed(folder / LEDGER)["files"]) == {"table.parquet"}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_and_any_cut_is_named(done: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path for path in done.rglob("*") if path.is_file())))
    content = file.read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = content[: place // 8] + bytes([content[place // 8] ^ 1 << place % 8]) + content[place // 8 + 1 :]
    try:
        for damaged in (flipped, content[: place // 8]):
            file.write_bytes(damaged)
            (problem,) = ledger_problems(done)
            assert problem.startswith(f"{file}: ")
        file.unlink()
        assert file.name == LEDGER or ledger_problems(done) == [f"{file}: is missing; run its stage again"]
    finally:
        file.write_bytes(content)
    assert ledger_problems(done) == []


def test_a_damaged_file_is_gone_when_its_stage_begins(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    stage(folder)
    kept = (folder / "page.html").stat().st_ino
    (folder / "table.parquet").write_text("damage")
    stage(folder)
    assert (folder / "table.parquet").read_text() == "what table.parquet says" and ledger_problems(folder) == []
    assert (folder / "page.html").stat().st_ino == kept


@pytest.mark.parametrize("files", [{"../kept": ""}, {"/etc/hostname": ""}, ["table.parquet"], None])
def test_a_ledger_that_names_what_lies_elsewhere_is_named_and_removes_nothing(tmp_path: Path, files: object) -> None:
    folder = tmp_path / "stage"
    stage(folder)
    (tmp_path / "kept").write_text("somebody's own")
    write_sealed(folder / LEDGER, {"files": files})
    (problem,) = ledger_problems(folder)
    assert problem.startswith(f"{folder / LEDGER}: ")
    stage(folder)
    assert (tmp_path / "kept").read_text() == "somebody's own" and ledger_problems(folder) == []


def test_a_stage_that_ends_in_an_error_has_no_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    stage(folder)
    with pytest.raises(RuntimeError), writing(folder):
        raise RuntimeError
    assert not (folder / LEDGER).exists() and ledger_problems(folder) == []


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    stage(folder)
    (folder / "runs" / ".1.json.77-77.partial").touch()
    stage(folder)
    assert [path.name for path in (folder / "runs").iterdir()] == ["0.json"]


def test_a_second_writer_is_refused_until_the_first_has_ended_or_died(tmp_path: Path) -> None:
    folder, context = tmp_path / "stage", multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=_hold, args=(folder, theirs))
    writer.start()
    assert ours.recv() == "writing"
    with pytest.raises(ValueError, match=f"{folder}: another process is writing here; wait"), one_writer(folder):
        pass
    writer.kill()
    writer.join()
    with one_writer(folder):
        pass


def _hold(folder: Path, pipe) -> None:  # type: ignore[no-untyped-def]
    with one_writer(folder):
        pipe.send("writing")
        pipe.recv()
