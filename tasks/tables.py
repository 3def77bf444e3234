"""Parquet tables of dataclass rows, JSON, and the one way a file is written: whole, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import types
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

Row = TypeVar("Row")
ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def atomic_write(path: Path, content: bytes) -> None:
    """Write, sync, rename, sync the folder: after a crash the file is the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Sorted keys, no NaN, newline at the end."""
    atomic_write(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises ValueError naming the file if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete it and run the stage again") from None


def schema(cls: type[Any]) -> pa.Schema:
    """The Arrow schema of a dataclass of str, int, float, bool, Literal, lists and optionals of these."""
    hints = get_type_hints(cls)
    return pa.schema([_field(field.name, hints[field.name]) for field in fields(cls)])


def _field(name: str, hint: Any) -> pa.Field:
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return _field(name, next(one for one in arguments if one is not type(None))).with_nullable(True)
    if get_origin(hint) is list:
        return pa.field(name, pa.list_(ARROW[arguments[0]]), nullable=False)
    return pa.field(name, pa.string() if get_origin(hint) is Literal else ARROW[hint], nullable=False)


def write_table(path: Path, rows: Sequence[Row], cls: type[Row]) -> None:
    """Rows of one dataclass as a Parquet file; equal rows give equal bytes."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema(cls))  # type: ignore[call-overload]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    atomic_write(path, sink.getvalue().to_pybytes())


def read_table(path: Path, cls: type[Row]) -> list[Row]:
    """The rows of a Parquet file.

    Raises:
        ValueError: if the file is broken or its columns are not those of `cls`.
    """
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error}); delete it and run the stage again") from None
    wanted = schema(cls)
    if table.schema.names != wanted.names:
        raise ValueError(f"{path}: columns are {table.schema.names}, but {cls.__name__} has {wanted.names}")
    return [cls(**row) for row in table.to_pylist()]
