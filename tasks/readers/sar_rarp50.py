"""SAR-RARP50, 50 robot-assisted prostatectomies with surgical actions that change within a video, as its owners publish it.

`train1/video_01/video_left.avi` (60 frames a second), beside it `action_discrete.txt`, lines of frame and action every sixth
frame (10 Hz), and `segmentation/000000060.png`, labels of instruments once a second. `video_11_1` and `video_11_2` are of one
patient. Psychogyios et al. 2023, arXiv:2401.00496; https://www.synapse.org/Synapse:syn27618412

A clip's class is the action at its middle frame, its words are SurV-Gen's prompt.
"""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from models.unknown import UNKNOWN
from tasks.readers import QuarantinedError, Source, Volume, cannot
from tasks.readers.images import FORMATS, MAX_PIXELS
from tasks.readers.video import OPTIONS

ACTIONS = ("other", "picking up the needle", "positioning the needle tip", "pushing the needle through the tissue",
           "pulling the needle out of the tissue", "tying a knot", "cutting the suture", "returning or dropping the needle")
"""G0 to G7."""
MAX_VALUES = 2**31
_PATIENT = re.compile(r"video_(\d+)")


class Params(BaseModel):
    """A whole video is held in memory: at 10 Hz and 180 x 320 pixels five minutes take half a gigabyte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(6, gt=0, description="n-th frame is taken: 6 is the owners' 10 Hz")
    size: tuple[int, int] = Field((180, 320), description="height, width to which frames are scaled as they are decoded")
    actions: list[str] | None = Field(None, description="G1, G6, ...: the others count as without a class; None: all")
    prompt: str = Field("action recognition task of {action}", description="a clip's words")
    masks: bool = Field(True, description="with the owners' labels of instruments 1..9; frames without are not annotated")


def sources(location: Path, params: Params) -> list[Source]:
    """`location` holds the videos' folders at any depth; one source a video."""
    wanted = params.actions or [f"G{number}" for number in range(len(ACTIONS))]
    if strange := [action for action in wanted if action not in {f"G{number}" for number in range(len(ACTIONS))}]:
        raise ValueError(f"dataset.options.actions: {', '.join(strange)} is not G0 to G{len(ACTIONS) - 1}")
    texts = {f"G{number}": params.prompt.format(action=action) for number, action in enumerate(ACTIONS)}
    found = []
    for video in sorted(location.rglob("video_*/video_left.avi")):
        folder, actions = video.parent, video.with_name("action_discrete.txt")
        patient = _PATIENT.match(folder.name)
        masks = sorted((folder / "segmentation").glob("*.png")) if params.masks else []
        files = (video, *([actions] if actions.exists() else []), *masks)
        found.append(Source(str(folder.relative_to(location)), files, patient[0] if patient else "", None,
                            partial(_read, video, actions, masks, wanted, params),
                            texts={label: texts[label] for label in wanted}))
    return found


def _read(video: Path, actions: Path, masks: list[Path], wanted: list[str], params: Params) -> Volume:
    frames = _frames(video, params)
    labels = _labels(actions, len(frames), params.every)
    shown = tuple(label if label in wanted else "" for label in labels)
    marked = _masks(masks, frames.shape[:3], params.every) if masks else None
    return Volume(frames, marked, 1000 / 60 * params.every, labels=shown)


def _frames(video: Path, params: Params) -> NDArray[np.uint8]:
    """(F, H, W, 3), every n-th frame."""
    height, width = params.size
    found: list[NDArray[Any]] = []
    try:
        with av.open(str(video), options=OPTIONS) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % params.every == 0:
                    if (len(found) + 1) * height * width * 3 > MAX_VALUES:
                        raise QuarantinedError(f"has more than {len(found)} frames of {height}x{width}")
                    scaled = frame.reformat(width, height, "rgb24", interpolation="AREA")
                    found.append(scaled.to_ndarray())
    except (FFmpegError, IndexError) as error:
        raise cannot("be decoded", error) from None
    if not found:
        raise QuarantinedError("video_left.avi has no frames")
    return np.stack(found).astype(np.uint8, copy=False)


def _labels(actions: Path, frames: int, every: int) -> list[str]:
    """The action of every frame that was taken: that of the last line at or before it."""
    if not actions.exists():
        raise QuarantinedError("has no action_discrete.txt")
    try:
        with actions.open(newline="") as file:
            lines = sorted((int(row[0]), int(row[1])) for row in csv.reader(file) if row)
    except (ValueError, IndexError):
        raise QuarantinedError("action_discrete.txt is not lines of frame,action") from None
    if not lines or any(not 0 <= action < len(ACTIONS) for _, action in lines):
        raise QuarantinedError(f"action_discrete.txt is empty or has actions outside 0..{len(ACTIONS) - 1}")
    starts = np.array([frame for frame, _ in lines])
    places = np.searchsorted(starts, every * np.arange(frames), side="right") - 1
    return [f"G{lines[place][1]}" if place >= 0 else "" for place in places.tolist()]


def _masks(files: list[Path], shape: tuple[int, ...], every: int) -> NDArray[np.uint8]:
    """(F, H, W); a picture of a frame that was not taken is left out."""
    masks = np.full(shape, UNKNOWN, np.uint8)
    for file in files:
        if not file.stem.isdecimal():
            raise QuarantinedError("has a mask that is not named by a frame")
        place, beside = divmod(int(file.stem), every)
        if beside or place >= len(masks):
            continue
        try:
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise QuarantinedError(f"has a mask that declares {opened.width}x{opened.height} pixels")
                masks[place] = np.asarray(opened.convert("L").resize((shape[2], shape[1]), Image.Resampling.NEAREST))
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise cannot("be read", error) from None
    return masks
