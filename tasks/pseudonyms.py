"""What stands for a name, a number or a UID that nobody downstream should read: keyed hashes, the key outside the repository.

Without the key, whoever has a list of a hospital's numbers could hash them all and look each pseudonym up. With the same key a
person has the same pseudonym on every machine and in every run; who loses it cannot make the same ones again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import uuid
from functools import lru_cache
from pathlib import Path

KEY = "CINEFAB_KEY"
"""The environment variable that names another file than ~/.config/cinefab/key."""
DIGITS = 64
"""Hexadecimal digits of a key: 256 bits."""
logger = logging.getLogger(__name__)


def pseudonym(identity: str) -> str:
    """16 hex digits (HMAC-SHA256, its first 64 bits) that stand for a name or a number.

    Raises:
        ValueError: as `key`.
    """
    return _keyed("name", identity).hex()[:16]


def other_uid(uid: str) -> str:
    """A UID below 2.25 (PS3.5 B.2) that stands for this one: equal for equal ones, so that references still meet.

    Raises:
        ValueError: as `key`.
    """
    return f"2.25.{uuid.UUID(bytes=_keyed('uid', uid)[:16], version=5).int}"


def key() -> bytes:
    """The site's key, made on first use for nobody but this user to read.

    Raises:
        ValueError: if its file holds no key, cannot be read or written, or lies in the repository that this is run from.
    """
    named = os.environ.get(KEY)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return _key(Path(named).expanduser() if named else config / "cinefab" / "key")


@lru_cache(maxsize=8)
def _key(path: Path) -> bytes:
    path = path.resolve()
    repository = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / ".git").exists()), Path.cwd())
    if path.is_relative_to(repository):
        raise ValueError(f"{path}: the key must not lie in the repository, which others get; name a file elsewhere in {KEY}")
    try:
        if not path.exists():
            _make(path)
        text = path.read_text().strip()
        made = bytes.fromhex(text) if len(text) == DIGITS else b""
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the key that patients are hashed with cannot be used ({type(error).__name__}); name a file "
                         f"that can in {KEY}") from None
    if not made:
        raise ValueError(f"{path}: is no key of {DIGITS} hexadecimal digits; put the right one back. Another one gives every "
                         "patient another pseudonym")
    return made


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(DIGITS // 2) + "\n")
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(partial, path)  # fails if another process was first: then there is one key, not two
        logger.warning("%s: a new key, with which patients are hashed. Keep it, for yourself: nobody can make the same "
                       "pseudonyms without it", path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _keyed(purpose: str, value: str) -> bytes:
    content = f"{purpose}:{value}".encode("utf-8", "surrogatepass")  # names of files need not be text
    return hmac.new(key(), content, hashlib.sha256).digest()
