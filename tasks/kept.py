"""Numbers of clips that need not be found again: kept in a cache, in files named by all they depend on.

A name is a fingerprint of code, of what measured and of what was measured, so no file is ever stale; the folder is safe to
delete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tasks.tables import atomic_write

CHECKSUM = "checksum"


def kept(cache: Path, mark: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` gives: from the cache where it is in it, whole, and put there where it is not.

    Args:
        mark: `tasks.fingerprint.fingerprint` of everything the tensors depend on.
        make: contiguous tensors by name; "checksum" is taken.
    """
    path = cache / f"{mark}.safetensors"
    if (there := _read(path)) is not None:
        return there
    made = dict(make())
    atomic_write(path, save({**made, CHECKSUM: _checksum(made)}))
    return made


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors in a file; None if there is none, or it was damaged."""
    try:
        stored = load(path.read_bytes())
        checksum = stored.pop(CHECKSUM)
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return stored if torch.equal(checksum, _checksum(stored)) else None


def _checksum(tensors: Mapping[str, Tensor]) -> Tensor:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
