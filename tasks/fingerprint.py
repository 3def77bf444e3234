"""Fingerprints: what a result depends on, in one word. Equal words mean that the work need not be done again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_ROOT = Path(__file__).parent.parent


@lru_cache(maxsize=1)
def code_digest() -> str:
    """blake2b of the source of `models` and `tasks`, by name and content; flows are order only and change no result."""
    return tree_digest(_ROOT, ("models", "tasks"))


def tree_digest(root: Path, folders: tuple[str, ...]) -> str:
    """blake2b, hex, of the *.py files below these folders of `root`: their names relative to it and their bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """blake2b, hex, of these values and of the code; dictionaries count by content, not by order.

    Args:
        parts: JSON values, pydantic models and dataclass rows. Paths are refused: they differ between machines.

    Raises:
        ValueError: for a part that has no JSON form.
    """
    return _digest([*parts, code_digest()])


def params_digest(model: BaseModel | dict[str, Any]) -> str:
    """blake2b, hex, of parameters alone, without the code: stable over edits, for provenance."""
    return _digest(model)


def _digest(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, default=_plain)
    except TypeError as error:
        raise ValueError(f"fingerprint: {error}; pass plain values") from None
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no stable form")
