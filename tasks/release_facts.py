"""What a release's folder says of itself, `release.json`: checked before anything is looked up by it."""

from __future__ import annotations

import json
import re
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def release_facts(content: bytes, where: str) -> dict[str, Any]:
    """The facts in the file `where`.

    Raises:
        ValueError: naming it, if it is not JSON, has no digests, or names a file that is not one beside it.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({str(error)[:200]}); pull the release again") from None
    files = facts.get("files") if isinstance(facts, dict) else None
    if not isinstance(files, dict) or not isinstance(facts.get("store_digest"), str):
        raise ValueError(f"{where}: is no record of a release; pull it again")
    for name, digest in files.items():
        if not _NAME.fullmatch(name) or not isinstance(digest, str):
            raise ValueError(f"{where}: names the file {name!r:.80}, which is none of a release; do not use it")
    return facts
