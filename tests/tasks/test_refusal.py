"""A release of near copies is refused, and one that is made all the same says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_line
from hypothesis import given
from hypothesis import strategies as st

from tasks.audit import judge_release
from tasks.params import AuditParams
from tasks.records import AuditRecord, ConditionRecord, Decision, ProvenanceRecord
from tasks.release import RefusedError, release
from tasks.report import report
from tasks.tables import read_json, read_table, write_json, write_table


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("line")
    tiny_line.build(data, tiny_line.params())
    return data


def released(data: Path, params: AuditParams) -> dict[str, Any]:
    tree = tiny_line.params()
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    return release(tree.release, tree.dataset, params, *folders)


def reported(data: Path, params: AuditParams) -> str:
    tree = tiny_line.params().model_copy(update={"audit": params})
    return report(tree, data, data / "reports").read_text()


def planted(line: Path, data: Path, copies: int) -> Path:
    """The tiny line, so many of whose released clips the audit calls near copies, and a clip that is not released."""
    shutil.copytree(line, data)
    table = data / "audit" / "sfvd" / "audit.parquet"
    near = {*tiny_line.KEPT[:copies], tiny_line.WRONG}
    rows = read_table(table, AuditRecord)
    write_table(table, [replace(one, near_copy=row in near) for row, one in enumerate(rows)], AuditRecord)
    return data


def test_a_release_of_copies_is_refused_in_one_line_and_has_a_report(line: Path, tmp_path: Path) -> None:
    data = planted(line, tmp_path / "data", 4)
    message = r"4 of 7 accepted clips of 'sfvd' \(57\.1%\) .*audit\.most \(5\.0%\).*audit\.refuse: false"
    with pytest.raises(RefusedError, match=message) as caught:
        released(data, AuditParams())
    assert "\n" not in str(caught.value)
    page = reported(data, AuditParams())
    assert "4 of 7 accepted clips are near copies" in page and "The release is refused." in page
    assert "<dt>clips to be released</dt><dd>0</dd>" in page


def test_a_release_that_is_refused_later_is_withdrawn(line: Path, tmp_path: Path) -> None:
    data = planted(line, tmp_path / "data", 4)
    released(data, AuditParams(most=0.9))
    assert (data / "release" / "release.json").exists()
    with pytest.raises(RefusedError):
        released(data, AuditParams())
    assert not (data / "release" / "release.json").exists()


def test_a_near_copy_is_withheld_with_its_reason(line: Path, tmp_path: Path) -> None:
    """One of seven proves nothing of the generator, and is not given away all the same."""
    data = planted(line, tmp_path / "data", 1)
    facts = released(data, AuditParams())
    gone = read_table(data / "clips" / "sfvd" / "provenance.parquet", ProvenanceRecord)[tiny_line.KEPT[0]].clip_id
    assert facts["audit"]["withheld"] == 1 and facts["counts"]["clips"] == 6 and facts["counts"]["dropped"] == 4
    folder = data / "release"
    assert gone not in {row.clip_id for row in read_table(folder / "provenance.parquet", ProvenanceRecord)}
    assert not any(row.near_copy for row in read_table(folder / "audit.parquet", AuditRecord))
    said = [row for row in read_table(folder / "decisions.parquet", Decision) if row.clip_id == gone and not row.keep]
    assert [row.filter for row in said] == ["audit"] and "more like a training clip" in said[0].reason
    assert "and not released; the benchmark below was trained on them as well" in (folder / "README.md").read_text()
    page = reported(data, AuditParams())
    assert "<dt>clips to be released</dt><dd>6</dd>" in page and "dropped by audit" in page
    assert 'class="verdict refused"' not in page


def test_a_release_of_copies_that_was_wanted_says_so(line: Path, tmp_path: Path) -> None:
    data = planted(line, tmp_path / "data", 4)
    facts = released(data, AuditParams(refuse=False))
    assert facts["audit"]["above"] and (facts["audit"]["copies"], facts["audit"]["clips"]) == (4, 7)
    card = (data / "release" / "README.md").read_text()
    assert "released all the same, as `audit.refuse: false` asked" in card and "4 (57.1 %" in card
    kept = read_table(data / "release" / "audit.parquet", AuditRecord)
    assert [one.near_copy for one in kept] == [True] * 4 + [False] * 3
    page = reported(data, AuditParams(refuse=False))
    assert "It is released all the same" in page and "<dt>clips to be released</dt><dd>7</dd>" in page


@given(copies=st.integers(0, 40), clips=st.integers(1, 40))
def test_refused_is_what_holds_more_than_most_beyond_doubt(copies: int, clips: int) -> None:
    """Of independent clips, as Wilson's interval or the bootstrap's says; no more copies can make it pass."""
    copies = min(copies, clips)
    rows = [AuditRecord(f"{row}", f"{row}", "n", "p", 0.5, "h", 0.5, 1.0, None, None, row < copies) for row in range(clips)]
    judged = judge_release(AuditParams(), rows)
    assert judged["refused"] == (judged["low"] > 0.05) and judged["withheld"] == copies
    if copies == clips:
        assert judged["refused"]
    if copies <= 0.05 * clips:
        assert not judged["refused"]


@pytest.mark.parametrize("how", ["none", "of other clips"])
def test_without_an_audit_of_these_clips_there_is_no_release(line: Path, tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(line, data)
    path = data / "audit" / "sfvd" / "audit.json"
    if how == "none":
        path.unlink()
    else:
        write_json(path, read_json(path) | {"clips_digest": "of clips sampled before"})
    with pytest.raises(ValueError, match="no audit of the clips that set 'sfvd' has now; run `cinefab audit sfvd`"):
        released(data, AuditParams(most=1.0))


def test_the_split_guard_comes_before_the_audit(line: Path, tmp_path: Path) -> None:
    """A synthetic clip inherits its condition's patients; one of a held-out patient is refused, whatever the audit allows."""
    shutil.copytree(line, tmp_path / "data")
    table = tmp_path / "data" / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    bank = read_table(line / "conditions" / "conditions.parquet", ConditionRecord)
    patients = {one.condition_id: one.patients for one in bank}
    assert all(row.patients == patients[row.condition_id] for row in rows)
    write_table(table, [replace(rows[0], patients=[*rows[0].patients, "patient09"]), *rows[1:]], ProvenanceRecord)
    with pytest.raises(ValueError, match="is of patient 'patient09', who is in the test split"):
        released(tmp_path / "data", AuditParams(refuse=False))
