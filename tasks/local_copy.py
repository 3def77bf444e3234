"""A data set on object storage, as a folder on this disk: readers open files, and read each of them twice."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path, PurePosixPath

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from tasks.tables import PARTIAL, checksum_of, make_folder, read_json, write_json

logger = logging.getLogger(__name__)

TOGETHER = 64
"""Files fetched at a time."""


def local_copy(location: str | Path, cache: Path) -> Path:
    """A path as it is; for an fsspec URL (s3://bucket/raw, ...) a folder below `cache` with the files below the URL.

    A file is fetched again when what the storage says of it (size, time, checksum) has changed, and removed when it is gone
    there. A copy that was interrupted goes on.

    Raises:
        ValueError: if nothing is there, it cannot be reached, or the protocol's package is not installed.
    """
    if isinstance(location, Path):
        return location
    folder = cache / hashlib.blake2b(location.encode(), digest_size=8).hexdigest()
    try:
        storage, root = url_to_fs(location, use_listings_cache=False)
        _bring(storage, root, folder)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"dataset.location: {location}: {error or type(error).__name__}; give the URL of a folder, and its "
                         "credentials and endpoint as the protocol's package takes them") from None
    return folder / "files"


def inside(name: str, root: str) -> str:
    """An object's name below the folder; one that would lead out of it is refused."""
    short = PurePosixPath(name.removeprefix(root).lstrip("/"))
    if ".." in short.parts or not short.parts:
        raise ValueError(f"{name!r} is no file below a folder")
    return short.as_posix()


def _bring(storage: AbstractFileSystem, root: str, copy: Path) -> None:
    there = {inside(name, root): (name, checksum_of({key: str(value) for key, value in said.items()}))
             for name, said in storage.find(root, detail=True).items()}
    if not there:
        raise ValueError("holds no file")
    files, index = copy / "files", copy / "index.json"
    make_folder(files)
    known: dict[str, str] = read_json(index) if index.exists() else {}
    for path in sorted(files.rglob("*")):
        if path.is_file() and path.relative_to(files).as_posix() not in there:
            path.unlink()
    left = [short for short, (_, said) in sorted(there.items()) if known.get(short) != said or not (files / short).is_file()]
    for start in range(0, len(left), TOGETHER):
        part = left[start : start + TOGETHER]
        partial = [files / f"{short}{PARTIAL}" for short in part]
        for folder in {path.parent for path in partial}:
            make_folder(folder)
        storage.get([there[short][0] for short in part], [str(path) for path in partial])
        for short, path in zip(part, partial, strict=True):
            path.replace(files / short)
        known |= {short: there[short][1] for short in part}
        write_json(index, {short: said for short, said in known.items() if short in there})
        logger.info("%d of %d files fetched", start + len(part), len(left))
