"""Recompute every checksum below a folder and name what is broken."""

from __future__ import annotations

from pathlib import Path

from tasks.checkpoints import load_checkpoint
from tasks.ledger import LEDGER, ledger_problems
from tasks.release_facts import release_facts
from tasks.store_check import verify
from tasks.tables import PARTIAL, file_digest

RELEASE, STORE = "release.json", "clips.zarr"


def verify_tree(path: Path) -> tuple[int, list[str]]:
    """Verify every clip store, checkpoint, ledger and release at or below `path`.

    Returns:
        How many of them were checked, and one line per problem with the file in it.

    Raises:
        FileNotFoundError: if `path` does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; nothing to verify")
    problems: list[str] = []
    stores = [path] if path.suffix == ".zarr" else sorted(path.rglob("*.zarr"))
    for store in stores:
        problems += [f"{store}: {problem}" for problem in verify(store)]
    checkpoints = sorted(found.parent for found in path.rglob("checkpoint.json")
                         if not found.parent.name.endswith(PARTIAL))  # one that was being saved is none yet
    for checkpoint in checkpoints:
        try:
            load_checkpoint(checkpoint)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    ledgers = sorted(found.parent for found in path.rglob(LEDGER))
    problems += [problem for folder in ledgers for problem in ledger_problems(folder)]
    releases = sorted(found.parent for found in path.rglob(RELEASE))
    problems += [problem for folder in releases for problem in _release_problems(folder)]
    return len(stores) + len(checkpoints) + len(ledgers) + len(releases), problems


def _release_problems(folder: Path) -> list[str]:
    """What is not as the release's own facts say; a version that wrote no ledgers has nothing else."""
    try:
        files = release_facts((folder / RELEASE).read_bytes(), str(folder / RELEASE))["files"]
    except (ValueError, OSError) as error:
        return [str(error)]
    missing = [] if (folder / STORE).is_dir() else [f"{folder / STORE}: is missing"]
    return missing + [f"{folder / name}: its bytes are not those that were released"
                      for name, digest in sorted(files.items())
                      if not (folder / name).is_file() or file_digest(folder / name) != digest]
