"""Profiles: what differs from params.yaml for one data set or one machine, written over it, comments kept.

A profile is a partial params.yaml. Mappings are merged key by key; anything else, and a mapping under a key written as
`key!`, replaces what was there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.tables import atomic_write

Change = tuple[str, Any, Any]
ABSENT = "(absent)"


def apply_profiles(params: Path, profiles: Sequence[Path]) -> list[Change]:
    """Merge the profiles into `params` in order; returns (dotted key, old, new) of everything that changed.

    Raises:
        ValueError: if a profile does not exist; the message lists those that do.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True  # lines stay as long as they are
    tree = yaml.load(params.read_text())
    changes: list[Change] = []
    for profile in profiles:
        if not profile.exists():
            known = ", ".join(sorted(path.stem for path in profile.parent.glob("*.yaml")))
            raise ValueError(f"{profile}: no such profile; choose one of {known}")
        _merge(tree, yaml.load(profile.read_text()), "", changes)
    if changes:
        text = io.StringIO()
        yaml.dump(tree, text)
        atomic_write(params, text.getvalue().encode())
    return changes


def _merge(tree: dict[str, Any], profile: dict[str, Any], prefix: str, changes: list[Change]) -> None:
    for marked, new in profile.items():
        key = marked.removesuffix("!")
        old = tree.get(key, ABSENT)
        if marked == key and isinstance(old, dict) and isinstance(new, dict):
            _merge(old, new, f"{prefix}{key}.", changes)
        elif old != new:
            tree[key] = new
            changes.append((f"{prefix}{key}", _plain(old), _plain(new)))


def _plain(value: Any) -> Any:
    """The value without ruamel's round-trip types, for printing."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
