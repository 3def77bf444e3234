"""Weights that others published, read from a folder on disk, and only if they are those: a number is called by a published name
on their account alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Whatever a library raises over somebody's folder of weights is one line that names it.

    Raises:
        ValueError: naming the folder.
    """
    try:
        yield
    except Exception as error:  # libraries raise what they like of a configuration that was made to
        raise ValueError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:400] or type(error).__name__}") from None


def published(kind: Any, folder: Path) -> Any:
    """A network of diffusers from a folder on disk. No pickle is read: weights in a .bin are not looked for.

    Raises:
        ValueError: naming the folder.
    """
    with loading(folder):
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def configuration(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        ValueError: naming it, if it is something else.
    """
    with loading(path):
        found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is not the configuration of a model")
    return found


@dataclass(frozen=True)
class WeightFile:
    """One file as its owner published it.

    Attributes:
        sha256: of its bytes.
        source: where it comes from, for whoever lacks it.
    """

    name: str
    sha256: str
    source: str

    def within(self, folder: Path) -> Path:
        """Where it is in a folder.

        Raises:
            ValueError: if it is missing or another one.
        """
        path = folder / self.name
        if not path.exists():
            raise ValueError(f"{path} is missing; it is {self.source}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise ValueError(f"{path} has sha256 {found}, not {self.sha256}; get it again, {self.source}")
        return path

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """What it holds by name, on the CPU; nothing but tensors is unpickled, and of no file that is not its owner's.

        Raises:
            ValueError: as `within`.
        """
        found: dict[str, Tensor] = torch.load(self.within(folder), map_location="cpu", weights_only=True)
        return found
