"""What a piece of work was made from: parameters, inputs and code, as one hash."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent


@cache
def code_digest() -> str:
    """Hash of every module below models/ and tasks/: an edit there makes old shards and states stale."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for floor in ("models", "tasks") for path in (ROOT / floor).rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """Hash of JSON-like parts and the code."""
    return _hash([*parts, code_digest()])


def params_digest(params: BaseModel | dict[str, Any]) -> str:
    """Hash of parameters alone."""
    return _hash(params.model_dump(mode="json") if isinstance(params, BaseModel) else params)


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
