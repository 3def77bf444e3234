"""Folders of pictures: one folder a clip, its pictures in name order the frames; masks under the same relative names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from models.unknown import UNKNOWN
from tasks.burned_in import Box, hidden, without_boxes
from tasks.patients import PatientParams, patient_lookup
from tasks.readers import QuarantinedError, Source, Volume, cannot

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""PIL goes by the content, and others start programs: what says it is PostScript is given to Ghostscript."""
MAX_PIXELS = 64_000_000
MAX_VALUES = 2**31
"""Of a clip: pictures x height x width x channels."""


class Params(PatientParams):
    """Mask pictures hold labels 0..K, or 0 and 255 for one class; frames without one are not annotated."""

    images: str = Field(".", description="relative to the location; every folder in it that holds pictures is a clip")
    masks: str | None = Field(None, description="folder of mask pictures under the same relative names; may be `images`")
    mask_suffix: str = Field("", description="what a mask's name has more than its picture's, before the dot, e.g. _mask")
    stills: bool = Field(False, description="every picture is a source of one frame")
    color: bool = False
    blank: list[Box] = Field(default_factory=list, description="boxes [x0, y0, x1, y1] of burned-in text, made black")


def sources(location: Path, params: Params) -> list[Source]:
    root = location / params.images
    look_up = patient_lookup(location, params)
    masks = location / params.masks if params.masks else None
    pictures = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
                      and not _is_mask(file, root, masks, params.mask_suffix))
    groups: dict[Path, list[Path]] = {}
    for file in pictures:
        groups.setdefault(file if params.stills else file.parent, []).append(file)
    found = []
    for key, files in groups.items():
        name = str(key.relative_to(location))
        known = look_up(name)
        wanted = [_mask_of(file, root, masks, params.mask_suffix) for file in files] if masks else []
        there = [file for file in wanted if file is not None]
        read = partial(_read, files, wanted, params)
        found.append(Source(name, (*files, *there), known.patient, known.label, read, known.text, site=known.site))
    return found


def _is_mask(file: Path, root: Path, masks: Path | None, suffix: str) -> bool:
    if masks is not None and masks != root and file.is_relative_to(masks):
        return True
    return bool(suffix) and file.stem.endswith(suffix)


def _mask_of(file: Path, root: Path, masks: Path, suffix: str) -> Path | None:
    """The mask of a picture, of whatever format; None if there is none."""
    stem = masks / file.relative_to(root).with_name(file.stem + suffix)
    return next((found for end in sorted(SUFFIXES) if (found := stem.with_name(stem.name + end)).is_file()), None)


def _read(files: list[Path], masks: list[Path | None], params: Params) -> Volume:
    frames: list[NDArray[np.uint8]] = []
    for number, file in enumerate(files):
        frames.append(_of(f"picture {number}", file, "RGB" if params.color else "L"))
        if frames[-1].shape != frames[0].shape:
            raise QuarantinedError("pictures differ in size")
        if frames[0].size * len(files) > MAX_VALUES:
            raise QuarantinedError(f"declares {frames[0].size * len(files)} values, more than {MAX_VALUES}")
    video = hidden(np.stack(frames), without_boxes(frames[0].shape[:2], params.blank))
    return Volume(video if params.color else video[..., None], mask_pictures(masks, video.shape[:3]) if masks else None)


def _of(which: str, file: Path, mode: str) -> NDArray[np.uint8]:
    """`picture`, the reason beginning with which of them it was: its name may tell who somebody is."""
    try:
        return picture(file, mode)
    except QuarantinedError as error:
        raise QuarantinedError(f"{which} {error}") from None


def picture(file: Path, mode: str) -> NDArray[np.uint8]:
    """One decoded picture; QuarantinedError if it cannot be or is too large."""
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise QuarantinedError(f"declares {opened.width}x{opened.height} pixels")
            if opened.mode.startswith("I") and mode == "L":  # 16 bits: PIL's own conversion clips
                deep = np.asarray(opened, dtype=np.float64)
                span = max(deep.max() - deep.min(), 1.0)
                return ((deep - deep.min()) / span * 255).round().astype(np.uint8)
            return np.asarray(opened.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, QuarantinedError):
            raise
        raise cannot("be read", error) from None


def by_frame(pictures: list[Path], frames: int) -> list[Path | None]:
    """The mask picture of every frame, None where there is none."""
    found: list[Path | None] = [None] * frames
    for file in pictures:
        if not file.stem.isdecimal() or int(file.stem) >= frames:
            raise QuarantinedError(f"has a mask that is not named by a frame 0..{frames - 1}")
        found[int(file.stem)] = file
    return found


def mask_pictures(files: Sequence[Path | None], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(F, H, W) labels from one picture a frame, 255 read as class 1; a frame without a picture is UNKNOWN."""
    masks = np.full(shape, UNKNOWN, np.uint8)
    for frame, file in enumerate(files):
        if file is None:
            continue
        labels = _of(f"mask of frame {frame}", file, "P" if _is_palette(file) else "L")
        if labels.shape != shape[1:]:
            raise QuarantinedError(f"mask of frame {frame} is {labels.shape}, the frame is {shape[1:]}")
        values = np.unique(labels)
        if values.max() == 255 and len(values) > 2:
            raise QuarantinedError(f"mask of frame {frame} has {len(values)} grey values; give labels 0..K, or 0 and 255")
        masks[frame] = np.where(labels == 255, 1, labels)
    return masks


def _is_palette(file: Path) -> bool:
    try:
        with Image.open(file, formats=FORMATS) as opened:
            return opened.mode == "P"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # decoding it will say what is wrong
