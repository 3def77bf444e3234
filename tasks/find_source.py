"""Which files a digest stands for: tables and logs name inputs by their bytes, since names may be those of people."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from models import plugin
from tasks.decoder import decoded
from tasks.params import DatasetParams
from tasks.prepare import closed
from tasks.tables import file_digest

LEAST = 8
"""Digits, so that a clip's patient or a shorter word is not looked for by mistake."""


def find_source(beginning: str, dataset: DatasetParams) -> list[Path]:
    """The files of the sources of a data set whose digest begins so, for the eyes of whoever asks; their masks too.

    Raises:
        ValueError: if that is no beginning of a digest, or nothing has it.
    """
    wanted, location = _checked(beginning), Path(dataset.location)
    options = plugin.params("tasks.readers", {"kind": dataset.reader, **dataset.options})
    found = [list(one.files) or [location / one.name] for one in decoded(dataset.reader, location, options, dataset.decoder)
             if one.found_by(closed(one, dataset) is None).startswith(wanted)]
    return _some([file for files in found for file in files], beginning, location)


def find_file(beginning: str, folder: Path) -> list[Path]:
    """The files below a folder whose sha256 begins so.

    Raises:
        ValueError: as `find_source`.
    """
    wanted = _checked(beginning)
    return _some([file for file in _files(folder) if file_digest(file).startswith(wanted)], beginning, folder)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _checked(beginning: str) -> str:
    if len(beginning) < LEAST or set(beginning) - set(string.hexdigits):
        raise ValueError(f"source: {beginning!r} is no beginning of a digest; give {LEAST} or more hexadecimal digits of "
                         "`file` in quarantine.parquet or of `source` in manifest.parquet")
    return beginning.lower()


def _some(found: list[Path], beginning: str, where: Path) -> list[Path]:
    if not found:
        raise ValueError(f"source: no file in {where} has a digest that begins with {beginning}; give the folder "
                         "that it lies in; or it was changed")
    return found
