"""Plug-ins without a registry: `kind` is the module's name inside one package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def kinds(package: str) -> list[str]:
    """The plug-ins a package has, e.g. `kinds("models.generators") == ["sfvd"]`."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def load(package: str, kind: str) -> ModuleType:
    """The module `package.kind`.

    Raises:
        ValueError: if the package has no such module; the message lists those it has.
    """
    if kind not in (known := kinds(package)):
        raise ValueError(f"kind: {kind!r} is not in {package}; choose one of {', '.join(known)}")
    return importlib.import_module(f"{package}.{kind}")


def params(package: str, entry: Mapping[str, Any], schema: str = "Params") -> Any:
    """The entry's own `kind` module's `Params` (or another of its schemas), validated; `kind` itself is taken out."""
    fields = {key: value for key, value in entry.items() if key != "kind"}
    return getattr(load(package, entry["kind"]), schema).model_validate(fields)
