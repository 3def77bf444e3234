"""Which patient and label a file belongs to: from a table beside the data, or from the file's name."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class PatientParams(BaseModel):
    """How to find patient and label; every file reader's Params extends it.

    With a table, files it does not list are quarantined. Without one, `patient_pattern`'s group "patient" (and "label", if it
    has one) is searched in the relative name; with neither, every file is a patient of its own, named by a hash of its name, so
    that names, which may be those of people, stay out of the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = Field(None, description="CSV or TSV, relative to the location")
    file_column: str = "file"
    patient_column: str = "patient"
    label_column: str | None = None
    patient_pattern: str | None = Field(None, description="regular expression with a group named patient")

    @field_validator("patient_pattern")
    @classmethod
    def _has_group(cls, value: str | None) -> str | None:
        if value is not None and "patient" not in re.compile(value).groupindex:
            raise ValueError("must be a regular expression with a group (?P<patient>...)")
        return value


def patient_lookup(location: Path, params: PatientParams) -> Callable[[str], tuple[str, str | None] | None]:
    """A function from relative file name to (patient, label), None where the table or pattern does not know the file.

    Raises:
        ValueError: if the table is missing or lacks a column.
    """
    if params.table is not None:
        return _from_table(location / params.table, params)
    if params.patient_pattern is None:
        return lambda name: (hashed(name), None)
    pattern = re.compile(params.patient_pattern)

    def search(name: str) -> tuple[str, str | None] | None:
        found = pattern.search(name)
        return (found["patient"], found.groupdict().get("label")) if found else None

    return search


def hashed(identity: str) -> str:
    """16 hex digits that stand for a name or a number nobody downstream should read."""
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def _from_table(path: Path, params: PatientParams) -> Callable[[str], tuple[str, str | None] | None]:
    if not path.is_file():
        raise ValueError(f"dataset.options.table: {path} does not exist; give a CSV or TSV relative to dataset.location")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    wanted = [params.file_column, params.patient_column, *([params.label_column] if params.label_column else [])]
    if rows and (missing := [column for column in wanted if column not in rows[0]]):
        raise ValueError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(rows[0])}")
    labels = [row[params.label_column] or None if params.label_column else None for row in rows]
    known = {row[params.file_column]: (row[params.patient_column], label) for row, label in zip(rows, labels, strict=True)}

    def look_up(name: str) -> tuple[str, str | None] | None:
        return known.get(name) or known.get(Path(name).name)

    return look_up
