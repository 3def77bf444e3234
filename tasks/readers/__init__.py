"""Readers: files in, volumes of frames and masks out, one module a format.

A module offers `Params` and `sources(location, params) -> list[Source]`, ordered by name. Listing is cheap and opens nothing;
`Source.read` decodes one file and raises `QuarantinedError` with a reason when it cannot be used. `tasks.decoder` calls both in
another process, but those of a module that says `COMPUTED = True`, since it opens no file. Readers import no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


class QuarantinedError(ValueError):
    """This input cannot be used; the message says why, in no words of the file's own. The run goes on without it."""


def cannot(what: str, error: Exception) -> QuarantinedError:
    """For what a library raised: "cannot be read (ImageFileError)". Its own words quote files and their names, which may be
    those of people, and would go to tables and logs."""
    return QuarantinedError(f"cannot {what} ({type(error).__name__})")


def leads_out(file: Path, location: Path) -> bool:
    """Whether a file below a data set's folder is, by a link, one elsewhere; such a one is not opened."""
    return not file.resolve().is_relative_to(location.resolve())


@dataclass(frozen=True)
class Volume:
    """One decoded source.

    Attributes:
        frames: (F, H, W, C) of any real dtype; C is 1 (grey) or 3 (RGB).
        masks: (F, H, W) uint8 label maps, `models.unknown.UNKNOWN` on frames nobody annotated, or None.
        mask_volume: mm^3 of everything the mask shows, where the file says how large a voxel is.
        labels: the class of every frame, "" where there is none, of a source whose class changes; a clip has that of its
            middle frame.
        frame_time_ms: milliseconds between frames where the file says so.
        spacing_mm: millimetres from slice to slice (None where frames are moments), from row to row and from column to column,
            where the file says so.
    """

    frames: NDArray[Any]
    masks: NDArray[Any] | None = None
    frame_time_ms: float | None = None
    mask_volume: float | None = None
    labels: tuple[str, ...] | None = None
    spacing_mm: tuple[float | None, float, float] | None = None


@dataclass(frozen=True)
class Source:
    """One input, not yet decoded.

    Attributes:
        name: path relative to the data set's location; it may tell who somebody is, so it is written nowhere.
        files: what is decoded; their bytes identify the source.
        patient, label: as the data set's table or file names say; an empty patient is one that they do not know.
        read: decodes it.
        text: what it shows in words, "" if nothing is said.
        site: where it was made, "" if nothing is said.
        texts: what a clip shows in words by its class, where classes change within the source; it stands in place of `text`.
        key: stands for the bytes of a source that is computed, not stored (the phantom).
    """

    name: str
    files: tuple[Path, ...]
    patient: str
    label: str | None
    read: Callable[[], Volume]
    text: str = ""
    key: str = ""
    site: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 of the files' bytes, in order."""
        digest = hashlib.sha256(self.key.encode())
        for file in self.files:
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def found_by(self, opened: bool) -> str:
        """What stands for the name in tables and logs, 64 hex digits: `digest`, or of a source that is not to be opened one of
        its size; `cinefab source` finds the files."""
        if opened:
            return self.digest()
        return hashlib.sha256(repr([file.lstat().st_size for file in self.files]).encode()).hexdigest()

    def megabytes(self) -> float:
        return sum(file.stat().st_size for file in self.files) / 1e6

    def outside(self, location: Path) -> str | None:
        """Why its files are not to be opened: one is no plain file, or a link leads out of the data set's folder; None if they
        are to be."""
        for file in self.files:
            if leads_out(file, location):
                return "leads out of the data set's folder by a link; put the file itself there"
            if not file.is_file():
                return "is no plain file, or a link to nothing"
        return None
