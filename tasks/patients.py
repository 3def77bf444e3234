"""Which patient, label and words belong to a file: from a table beside the data, or from the file's name."""

from __future__ import annotations

import csv
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.pseudonyms import pseudonym

OUTSIDE = "outside:"
"""How the names of outside patients begin."""


class Known(NamedTuple):
    """What is known of a file; an empty patient is one that nobody knows."""

    patient: str = ""
    label: str | None = None
    text: str = ""
    site: str = ""


class PatientParams(BaseModel):
    """How to find patient, label and text; every file reader's Params extends it.

    With a table, files it does not list are quarantined. Without one, `patient_pattern`'s group "patient" (and "label", if it
    has one) is searched in the relative name; with neither, every file is a patient of its own, named by a keyed hash of its
    name, so that names, which may be those of people, stay out of the manifest. What a table or a pattern gives as patient,
    label, site and text goes into manifests and releases as it is: have them give codes.

    The text is `text` with the row's values in the places of columns in braces; {findings} is the list of those columns of
    `findings` that hold 1, true or yes: `text: "{probe} probe, {findings}"`, `findings: {b_lines: B-lines}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = Field(None, description="CSV or TSV, relative to the location")
    file_column: str = "file"
    patient_column: str = "patient"
    label_column: str | None = None
    site_column: str | None = Field(None, description="hospital, scanner or probe; see dataset.out_domain")
    labels: dict[str, str] = Field(default_factory=dict, description="merges or renames values of label_column; others stay")
    text: str = Field("", description="template over the table's columns; see PatientParams")
    findings: dict[str, str] = Field(default_factory=dict, description="column of the table -> its word in the text")
    no_findings: str = Field("no findings", description="what {findings} says when no column holds")
    patient_pattern: str | None = Field(None, description="regular expression with a group named patient")

    @property
    def by_hash(self) -> bool:
        """Whether patients are named by a keyed hash, for which the site's key is needed."""
        return self.table is None and self.patient_pattern is None

    @field_validator("patient_pattern")
    @classmethod
    def _has_group(cls, value: str | None) -> str | None:
        if value is not None and "patient" not in re.compile(value).groupindex:
            raise ValueError("must be a regular expression with a group (?P<patient>...)")
        return value


def patient_lookup(location: Path, params: PatientParams) -> Callable[[str], Known]:
    """A function from relative file name to what is known of it; without a patient where table or pattern do not know the file.

    Raises:
        ValueError: if the table is missing or lacks a column.
    """
    if params.table is not None:
        return _from_table(location / params.table, params)
    if params.patient_pattern is None:
        return lambda name: Known(pseudonym(name))
    pattern = re.compile(params.patient_pattern)

    def search(name: str) -> Known:
        if (found := pattern.search(name)) is None:
            return Known()
        label = found.groupdict().get("label")
        return Known(found["patient"], params.labels.get(label, label) if label else None)

    return search


def outside_patient(collection: str, patient: str) -> str:
    """The name, in a condition's `patients`, of somebody whose images come from beside the data set."""
    return f"{OUTSIDE}{collection.replace(':', '_')}:{patient}"


def outside_name(patient: str) -> str | None:
    """The name that an outside patient has in its own collection; None for a patient of the data set."""
    return patient.removeprefix(OUTSIDE).partition(":")[2] if patient.startswith(OUTSIDE) else None


def _from_table(path: Path, params: PatientParams) -> Callable[[str], Known]:
    if not path.is_file():
        raise ValueError(f"table: {path} does not exist; give a CSV or TSV relative to the folder of the data")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    named = [column for _, column, _, _ in string.Formatter().parse(params.text) if column not in (None, "findings")]
    columns = [params.file_column, params.patient_column, params.label_column, params.site_column]
    wanted = [*(column for column in columns if column), *params.findings, *named]
    if rows and (missing := [column for column in wanted if column not in rows[0]]):
        raise ValueError(f"{path}: has no column {', '.join(map(str, missing))}; it has {', '.join(rows[0])}")
    known = {row[params.file_column]: _row(row, params) for row in rows}

    def look_up(name: str) -> Known:
        return known.get(name) or known.get(Path(name).name) or Known()

    return look_up


def _row(row: dict[str, str], params: PatientParams) -> Known:
    label = (row[params.label_column] or None) if params.label_column else None
    present = [word for column, word in params.findings.items() if row[column].strip().lower() in ("1", "1.0", "true", "yes")]
    text = params.text.format(**{**row, "findings": _listed(present) or params.no_findings})
    site = row[params.site_column] if params.site_column else ""
    return Known(row[params.patient_column], params.labels.get(label, label) if label else None, text, site)


def _listed(words: Sequence[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
