"""Tables and JSON through the real files."""

from __future__ import annotations

import errno
import math
import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import records, tables
from tasks.tables import (
    DiskFullError,
    atomic_path,
    atomic_write,
    file_digest,
    naming,
    read_json,
    read_sealed,
    read_table,
    schema_of,
    write_json,
    write_sealed,
    write_table,
)


@dataclass(frozen=True)
class Every:
    """One column of each kind."""

    text: str
    number: int
    score: float
    keep: bool
    split: Literal["train", "test"]
    label: str | None
    level: int | None
    names: list[str]


@dataclass(frozen=True)
class Fewer:
    text: str


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.builds(
    Every,
    text=TEXT,
    number=st.integers(-(2**63), 2**63 - 1),
    score=st.floats(allow_nan=False),
    keep=st.booleans(),
    split=st.sampled_from(["train", "test"]),
    label=st.none() | TEXT,
    level=st.none() | st.integers(0, 9),
    names=st.lists(TEXT, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROWS, max_size=5))
def test_rows_come_back_and_equal_rows_give_equal_bytes(tmp_path_factory: pytest.TempPathFactory, rows: list[Every]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    write_table(folder / "a.parquet", rows, Every)
    write_table(folder / "b.parquet", rows, Every)
    assert read_table(folder / "a.parquet", Every) == rows
    assert file_digest(folder / "a.parquet") == file_digest(folder / "b.parquet")
    assert pq.read_table(folder / "a.parquet").column_names == list(schema_of(Every).names)  # opened by pyarrow alone


@settings(max_examples=60, deadline=None)
@given(total=st.integers(0, 12), start=st.integers(0, 14), length=st.integers(0, 9))
def test_some_rows_are_those_of_all(tmp_path_factory: pytest.TempPathFactory, total: int, start: int, length: int) -> None:
    rows, path = [Fewer(str(number)) for number in range(total)], tmp_path_factory.mktemp("tables") / "a.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_TOGETHER", 4)
        write_table(path, rows, Fewer)
    assert read_table(path, Fewer, range(start, start + length)) == rows[start : start + length]
    assert pq.ParquetFile(path).num_row_groups == max(1, -(-total // 4))


def test_rows_of_others_are_not_decoded(tmp_path: Path) -> None:
    """A shard's rows of a plan of millions cost what the shard costs."""
    rows = [records.ScoreRecord("x" * 30, "f", number / 7) for number in range(tables.ROWS_TOGETHER + 2)]
    write_table(tmp_path / "a.parquet", rows, records.ScoreRecord)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    first = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(2)
    content[first.data_page_offset : first.data_page_offset + 99] = bytes(99)
    (tmp_path / "a.parquet").write_bytes(content)
    assert read_table(tmp_path / "a.parquet", records.ScoreRecord, range(len(rows) - 2, len(rows))) == rows[-2:]
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable Parquet file"):
        read_table(tmp_path / "a.parquet", records.ScoreRecord, range(2))


def test_nan_is_kept(tmp_path: Path) -> None:
    row = records.ScoreRecord("a", "vae", math.nan)
    write_table(tmp_path / "a.parquet", [row], records.ScoreRecord)
    assert math.isnan(read_table(tmp_path / "a.parquet", records.ScoreRecord)[0].score)


@pytest.mark.parametrize(
    "cls", [records.ClipRecord, records.QuarantineRecord, records.ConditionRecord, records.ProvenanceRecord, records.Decision]
)
def test_every_table_of_the_line_has_a_schema(tmp_path: Path, cls: type) -> None:
    write_table(tmp_path / "empty.parquet", [], cls)
    assert read_table(tmp_path / "empty.parquet", cls) == []


ROW = Every("a", 1, 0.5, True, "train", None, None, ["x"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("text", 3), ("number", "three"), ("number", 2**63), ("number", 1.5), ("keep", "yes"), ("names", [1]),
     ("text", None), ("number", None), ("split", "val"), ("names", None)],
)
def test_a_value_that_does_not_fit_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    row = Every(**{**vars(ROW), field: value})
    with pytest.raises(ValueError, match=rf"a\.parquet: column {field}"):
        write_table(tmp_path / "a.parquet", [row], Every)
    assert not list(tmp_path.iterdir())


def test_other_columns_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [Fewer("x")], Fewer)
    with pytest.raises(ValueError, match=r"a\.parquet: columns are text string, but Every has text string, number"):
        read_table(tmp_path / "a.parquet", Every)
    pq.write_table(pa.table({"text": pa.array([1, 2])}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="text int64"):
        read_table(tmp_path / "b.parquet", Fewer)
    schema = schema_of(Every)
    wrong = {**vars(ROW), "split": "holdout"}
    pq.write_table(pa.Table.from_pylist([wrong], schema=schema), tmp_path / "c.parquet")
    with pytest.raises(ValueError, match="holdout"):
        read_table(tmp_path / "c.parquet", Every)


def test_a_damaged_or_missing_table_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [ROW] * 100, Every)
    content = (tmp_path / "a.parquet").read_bytes()
    for cut in (0, 3, len(content) // 2, len(content) - 1):
        (tmp_path / "a.parquet").write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"a\.parquet"):
            read_table(tmp_path / "a.parquet", Every)
    with pytest.raises(ValueError, match=r"b\.parquet: no such file"):
        read_table(tmp_path / "b.parquet", Every)


def test_a_type_without_a_column_is_refused() -> None:
    @dataclass
    class Odd:
        when: complex

    Odd.__annotations__["when"] = complex
    with pytest.raises(ValueError, match=r"Odd\.when"):
        schema_of(Odd)


def test_json_is_sorted_and_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, "ä"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": [\n    null,\n    "ä"\n  ],\n  "b": 1\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": [None, "ä"], "b": 1}
    for value in (math.nan, math.inf, {1, 2}, tmp_path):
        with pytest.raises(ValueError, match=r"b\.json"):
            write_json(tmp_path / "b.json", {"value": value})
    assert not (tmp_path / "b.json").exists()
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ValueError, match=r"c\.json: not JSON"):
        read_json(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"d\.json: no such file"):
        read_json(tmp_path / "d.json")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_seal_breaks_with_any_bit(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("sealed") / "a.json"
    value = {"ids": ["a", "b"], "shard": 3, "text": string.printable, "score": 0.1}
    write_sealed(path, value)
    assert read_sealed(path) == value
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_sealed(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path, 4) as partial:
        partial.write_bytes(b"half")
        assert partial.name.endswith(".partial") and partial.parent == path.parent
        raise RuntimeError("the power went")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")
def test_a_full_disk_says_which_file_and_how_much_it_needs() -> None:
    full = Path("/dev/full")
    message = r"^/dev/full: its disk is full: it needs up to 1,234 bytes, [\d,]+ are free; free some and run this again"
    with pytest.raises(DiskFullError, match=message), naming(full, 1234):
        full.write_bytes(b"data")
    with pytest.raises(PermissionError, match="somewhere else"), naming(full, 1234):  # others' errors stay theirs
        raise PermissionError(errno.EPERM, "no", "somewhere else")


def test_a_hard_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    atomic_write(tmp_path / "cached", b"old")
    os.link(tmp_path / "cached", tmp_path / "linked")
    (tmp_path / "linked").chmod(0o444)
    atomic_write(tmp_path / "linked", b"new")
    assert (tmp_path / "cached").read_bytes() == b"old" and (tmp_path / "linked").read_bytes() == b"new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        atomic_write(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_sha256_of_a_known_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
