"""Profiles: what differs from params.yaml for one data set or one machine, written over it, comments kept.

A profile is a partial params.yaml. Mappings are merged key by key; anything else, and a mapping under a key written as
`key!`, replaces what was there. `base: NAME` applies that profile of the same folder first: a data set's profile starts from
`phantom`, which sets everything, so that it gives the same parameters whatever was there before.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tasks.tables import atomic_write
from tasks.yaml_files import read_yaml

Change = tuple[str, Any, Any]
ABSENT = "(absent)"
_NAME = re.compile("[A-Za-z0-9_-]+")


def apply_profiles(params: Path, profiles: Sequence[Path]) -> list[Change]:
    """Merge the profiles into `params` in order; returns (dotted key, old, new) of everything that changed.

    Raises:
        ValueError: if a profile does not exist; the message lists those that do.
    """
    yaml = _yaml()
    tree = read_yaml(params, yaml)
    before = _plain(tree)
    for profile in profiles:
        _apply(tree, profile, yaml)
    if changed := list(changes(before, _plain(tree), "")):
        _write(tree, params, yaml)
    return changed


def set_version(params: Path, version: str) -> None:
    """`release.version`, and nothing else, not even a comment."""
    yaml = _yaml()
    tree = read_yaml(params, yaml)
    if tree["release"]["version"] != version:
        tree["release"]["version"] = version
        _write(tree, params, yaml)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True  # lines stay as long as they are
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _write(tree: dict[str, Any], params: Path, yaml: YAML) -> None:
    text = io.StringIO()
    yaml.dump(tree, text)
    atomic_write(params, text.getvalue().encode())


def _apply(tree: dict[str, Any], path: Path, yaml: YAML, above: tuple[str, ...] = ()) -> None:
    if not path.exists():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise ValueError(f"{path}: no such profile; choose one of {known}")
    profile = read_yaml(path, yaml)
    if (base := profile.pop("base", None)) is not None:
        if not isinstance(base, str) or not _NAME.fullmatch(base) or base in above:
            raise ValueError(f"{path}: base: {base!r:.80} is no other profile of the same folder")
        _apply(tree, path.with_stem(base), yaml, (*above, base))
    _merge(tree, profile)


def _merge(tree: dict[str, Any], profile: dict[str, Any]) -> None:
    for marked, new in profile.items():
        key = marked.removesuffix("!")
        old = tree.get(key)
        if marked == key and isinstance(old, dict) and isinstance(new, dict):
            _merge(old, new)
        elif _plain(old) != _plain(new):
            tree[key] = new


def changes(old: dict[str, Any], new: dict[str, Any], prefix: str) -> Iterator[Change]:
    """What differs, by dotted key; keys that are gone last."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from changes(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _plain(value: Any) -> Any:
    """The value without ruamel's round-trip types, for printing."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
