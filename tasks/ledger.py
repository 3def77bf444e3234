"""A stage's folder while it writes there: one writer at a time, and at the end a ledger of its files, so that damage is seen.

`ledger.json` holds the sha256 of every file but those of clip stores, which have records of their own. It is removed when the
stage begins and written, last, when it ends: a folder without one belongs to a stage that is not finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tasks.tables import PARTIAL, file_digest, make_folder, read_sealed, stays_below, sync, write_sealed

LEDGER = "ledger.json"


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """This process alone writes into the folder; the lock (`.NAME.lock` beside it) ends with the process, however that ends.

    Raises:
        ValueError: if another process writes there, at once.
    """
    make_folder(folder.parent)
    try:
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=0, thread_local=False):
            yield
    except Timeout:
        raise ValueError(f"{folder}: another process is writing here; wait until it has ended, or stop it") from None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The block is a stage that writes into the folder, alone.

    Files that were damaged since the last time are removed first, so that the stage makes them again and never reads them, and
    so are those that a killed one was writing.

    Raises:
        ValueError: if another process writes there.
    """
    with one_writer(folder):
        ledger = folder / LEDGER
        for partial in folder.rglob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)
        if ledger.exists():
            with suppress(ValueError):  # one that was damaged itself says nothing of others
                for path in _damaged(folder):
                    path.unlink(missing_ok=True)
            ledger.unlink(missing_ok=True)
            sync(folder)
        yield
        write_sealed(ledger, {"files": {name: file_digest(folder / name) for name in _names(folder)}})


def ledger_problems(folder: Path) -> list[str]:
    """One line for each file that is not what the folder's ledger says, naming it; [] if all are, or there is no ledger."""
    if not (folder / LEDGER).exists():
        return []
    try:
        damaged = _damaged(folder)
    except ValueError as error:
        return [str(error)]
    return [f"{path}: {'is not what was written' if path.exists() else 'is missing'}; run its stage again" for path in damaged]


def _damaged(folder: Path) -> list[Path]:
    """Files that are missing or differ from the ledger.

    Raises:
        ValueError: if the ledger is damaged itself, or names files elsewhere, which are not ours to remove.
    """
    files: Any = read_sealed(folder / LEDGER).get("files")
    if not isinstance(files, dict) or not all(stays_below(name) for name in files):
        raise ValueError(f"{folder / LEDGER}: is no list of this folder's files; run its stage again")
    return [path for path, digest in ((folder / name, digest) for name, digest in sorted(files.items()))
            if not path.is_file() or file_digest(path) != digest]


def _names(folder: Path) -> list[str]:
    """What a ledger lists; hidden names are work in progress."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        inside = any(part.endswith(".zarr") for part in name.parts) or any(part.startswith(".") for part in name.parts)
        if path.is_file() and not inside and not path.name.endswith(PARTIAL) and name != Path(LEDGER):
            found.append(name.as_posix())
    return sorted(found)
