"""Files on disk: tables are Parquet, the rest JSON. Each is written whole or not at all; equal rows give equal bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PARTIAL = ".partial"
"""How the name of an unfinished file or folder ends; DVC ignores them, their writers sweep them."""

ROWS_TOGETHER = 2**16
"""Rows of a table's row group: whoever wants a few rows of millions decodes these alone."""

Row = TypeVar("Row")
_SCALARS: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class DiskFullError(OSError):
    """There was no space left for a file; its message names the file, what it needs and what is free."""


@contextmanager
def naming(path: Path, needed: int | None) -> Iterator[None]:
    """The block writes up to `needed` bytes at `path` (None: nobody knows how many): an error of the system that names no file
    names this one.

    Raises:
        DiskFullError: if the disk, or the user's share of it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if error.filename is None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        free = shutil.disk_usage(path.parent).free
        wants = "" if needed is None else f"it needs up to {needed:,} bytes, "
        raise DiskFullError(f"{path}: its disk is full: {wants}{free:,} are free; free some and run this again, what is "
                            "finished is kept") from error


@contextmanager
def atomic_path(path: Path, needed: int | None = None) -> Iterator[Path]:
    """A temporary name beside `path`; when the block ends, that file is synced and renamed to `path`.

    Whoever reads `path` sees the old file or the whole new one, also after a kill or a power cut. A hard link at `path`
    (DVC's cache) is replaced, never written through.

    Args:
        needed: bytes it will have at most, for the message if the disk is full; None if nobody knows.

    Raises:
        DiskFullError: if the disk is full.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
    try:
        with naming(path, needed):
            yield partial
            sync(partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file by temporary name, fsync and rename; missing folders are made."""
    with atomic_path(path, len(content)) as partial:
        partial.write_bytes(content)


def sync(path: Path) -> None:
    """fsync one file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """`mkdir -p` whose new folders survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Sorted keys, two spaces, a newline at the end, UTF-8.

    Raises:
        ValueError: for a NaN or an infinity (write null), or a value that is not plain JSON.
    """
    try:
        content = _json_bytes(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not JSON: {error}; use plain values, and null where there is no number") from None
    atomic_write(path, content)


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ValueError: naming the file, if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the stage that makes it") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({str(error)[:200]}); delete it and run its stage again") from None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """`write_json` with one more key, `checksum`, so that any flipped bit is noticed by `read_sealed`."""
    write_json(path, {**value, "checksum": checksum_of(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum.

    Raises:
        ValueError: naming the file, if it is missing, not JSON, or was changed since.
    """
    sealed = read_json(path)
    try:
        whole = isinstance(sealed, dict) and path.read_bytes() == _json_bytes(sealed)  # JSON has several spellings of one value
    except (ValueError, RecursionError):  # an infinity
        whole = False
    value = {key: one for key, one in sealed.items() if key != "checksum"} if isinstance(sealed, dict) else {}
    if not whole or sealed != {**value, "checksum": checksum_of(value)}:
        raise ValueError(f"{path}: its checksum does not match its content; delete it and run its stage again")
    return value


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def checksum_of(value: dict[str, Any]) -> str:
    """blake2b (32 hex digits) of a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def stays_below(name: str) -> bool:
    """Whether a file's name, as a record gives it, is one below the record's folder: relative, without dots that lead up."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)


def schema_of(cls: type) -> pa.Schema:
    """Arrow schema of a dataclass: str, int, float, bool, Literal of strings, `X | None` and `list[X]` of those.

    Raises:
        ValueError: naming the field whose type has no column type.
    """
    hints = get_type_hints(cls)
    columns = []
    for field in fields(cls):
        hint, optional = _without_none(hints[field.name])
        columns.append(pa.field(field.name, _arrow_type(hint, f"{cls.__name__}.{field.name}"), nullable=optional))
    return pa.schema(columns)


def write_table(path: Path, rows: Sequence[Row], cls: type[Row]) -> None:
    """Rows of one dataclass as Parquet (zstd), columns in field order; equal rows give equal bytes.

    Raises:
        ValueError: naming file and column, if a value does not fit its field's type.
    """
    schema = schema_of(cls)
    columns = []
    for column in schema:
        values = [getattr(row, column.name) for row in rows]
        try:
            if column.type == pa.int64() and any(isinstance(value, float) for value in values):
                raise pa.ArrowTypeError("fractions would be cut off")  # pyarrow does so silently
            columns.append(pa.array(values, column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"{path}: column {column.name} takes {column.type}: {error}") from None
    table = pa.Table.from_arrays(columns, schema=schema)
    _check_values(path, table, cls)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", version="2.6", row_group_size=ROWS_TOGETHER, write_page_checksum=True)
    atomic_write(path, sink.getvalue().to_pybytes())


def read_table(path: Path, cls: type[Row], rows: range | None = None) -> list[Row]:
    """The rows of a table that `write_table` wrote; all of them, or those of `rows` that there are.

    Raises:
        ValueError: naming the file, if it is missing, not Parquet, or has other columns than the dataclass.
    """
    schema = schema_of(cls)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        table = file.read() if rows is None else _some(file, rows)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the stage that makes it") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:400]
        raise ValueError(f"{path}: not a readable Parquet file ({said}); run its stage again") from None
    if table.schema.remove_metadata() != schema:
        raise ValueError(f"{path}: columns are {_columns(table.schema)}, but {cls.__name__} has {_columns(schema)}")
    _check_values(path, table, cls)
    try:
        columns = {name: table.column(name).to_pylist() for name in schema.names}
    except ValueError as error:  # words that are no UTF-8
        raise ValueError(f"{path}: not a readable Parquet file ({error}); run its stage again") from None
    return [cls(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _some(file: pq.ParquetFile, rows: range) -> pa.Table:
    """These rows, out of the row groups that hold them."""
    wanted, skipped, first = [], 0, 0
    for number in range(file.num_row_groups):
        last = first + file.metadata.row_group(number).num_rows
        if last <= rows.start:
            skipped = last
        elif first < rows.stop:
            wanted.append(number)
        first = last
    return file.read_row_groups(wanted).slice(rows.start - skipped, len(rows))


def _check_values(path: Path, table: pa.Table, cls: type) -> None:
    """Nulls only where the field allows None, and only the listed words where it is a Literal."""
    hints = get_type_hints(cls)
    for column in table.schema:
        values = table.column(column.name)
        if not column.nullable and values.null_count:
            raise ValueError(f"{path}: column {column.name} has {values.null_count} nulls, but {cls.__name__} allows none")
        hint, _ = _without_none(hints[column.name])
        if get_origin(hint) is Literal:
            wrong = set(pc.unique(values.drop_null()).to_pylist()) - set(get_args(hint))
            if wrong:
                raise ValueError(f"{path}: column {column.name} has {sorted(wrong)}; allowed: {', '.join(get_args(hint))}")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}{'?' if column.nullable else ''}" for column in schema)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); any other type -> (itself, False)."""
    if get_origin(hint) in (Union, types.UnionType):
        kept = [arm for arm in get_args(hint) if arm is not type(None)]
        if len(kept) == 1:
            return kept[0], True
    return hint, False


def _arrow_type(hint: Any, where: str) -> pa.DataType:
    if get_origin(hint) is list:
        return pa.list_(pa.field("element", _arrow_type(get_args(hint)[0], where), nullable=False))
    if get_origin(hint) is Literal and all(isinstance(word, str) for word in get_args(hint)):
        return pa.string()
    if hint not in _SCALARS:
        raise ValueError(f"{where}: no column type for {hint}; use str, int, float, bool, Literal, list or None of those")
    return _SCALARS[hint]
