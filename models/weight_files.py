"""Weights that others published, read from a folder on disk, and only if they are those: a number is called by a published name
on their account alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


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
