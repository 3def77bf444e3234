"""Recompute every checksum below a folder and name what is broken."""

from __future__ import annotations

from pathlib import Path

from tasks.checkpoints import load_checkpoint
from tasks.store_check import verify


def verify_tree(path: Path) -> tuple[int, list[str]]:
    """Verify every clip store and checkpoint at or below `path`.

    Returns:
        How many stores and checkpoints were checked, and one line per problem with the file in it.

    Raises:
        FileNotFoundError: if `path` does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; nothing to verify")
    problems: list[str] = []
    stores = [path] if path.suffix == ".zarr" else sorted(path.rglob("*.zarr"))
    for store in stores:
        problems += [f"{store}: {problem}" for problem in verify(store)]
    checkpoints = sorted(found.parent for found in path.rglob("checkpoint.json"))
    for checkpoint in checkpoints:
        try:
            load_checkpoint(checkpoint)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return len(stores) + len(checkpoints), problems
