"""YAML that anybody may have written: what is wrong with it is one line, and a small file does not become a large tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

MOST = 100_000
"""Values in a file, those that aliases repeat counted as often as they are: nine lines can make thousands of millions."""

DEEPEST = 50


def read_yaml(path: Path, round_trip: YAML | None = None) -> dict[str, Any]:
    """The mapping in a file; by a loader of ruamel's, which keeps comments, if one is given.

    Raises:
        ValueError: naming the file, if it is not YAML, no mapping with words as keys, or too large.
        FileNotFoundError: if there is none.
    """
    try:
        text = path.read_text()
        _check_depth(text)  # before the other loaders, which take seconds over a line of brackets
        tree = yaml.safe_load(text) if round_trip is None else round_trip.load(text)
    except FileNotFoundError:
        raise
    except (yaml.YAMLError, YAMLError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())[:400]}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: not a mapping of parameters, but {type(tree).__name__}")
    try:
        if _values(tree, {}) > MOST:
            raise ValueError(f"{path}: more than {MOST} values; aliases repeat them")
    except (RecursionError, TypeError) as error:
        raise ValueError(f"{path}: {error if isinstance(error, TypeError) else 'nested too deeply, or in itself'}") from None
    return tree


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")


def _values(tree: Any, known: dict[int, int]) -> int:
    """How many there are, written out."""
    if not isinstance(tree, dict | list):
        return 1
    if id(tree) not in known:
        known[id(tree)] = MOST  # what holds itself has no end
        if isinstance(tree, dict) and (strange := [key for key in tree if not isinstance(key, str)]):
            raise TypeError(f"a key is {strange[0]!r:.80}, which is no word")
        inside = tree.values() if isinstance(tree, dict) else tree
        known[id(tree)] = 1 + sum(_values(one, known) for one in inside)
    return known[id(tree)]
