"""Video files (mp4, mov, avi, mpeg, ...) through PyAV, with an optional folder of mask pictures a video."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from pydantic import Field

from tasks.burned_in import Box, hidden, without_boxes
from tasks.patients import PatientParams, patient_lookup
from tasks.readers import QuarantinedError, Source, Volume, cannot
from tasks.readers.images import by_frame, mask_pictures

SUFFIXES = {".mp4", ".mov", ".avi", ".mpeg", ".mpg", ".m4v", ".mkv", ".wmv", ".gif"}

OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,mpeg,mpegvideo,mpegts,m4v,matroska,webm,asf,gif"}
"""FFmpeg goes by the content, and some formats (HLS, DASH, concat, SDP) are lists of other files and addresses to be opened."""


class Params(PatientParams):
    """Mask pictures are named by their frame's number, from 0 (`17.png`, `0017.png`); frames without one are not annotated."""

    folder: str = Field(".", description="relative to the data set's location; searched in depth")
    masks: str | None = Field(None, description="folder with a folder a video, named as it without suffix; see Params")
    color: bool = Field(False, description="keep RGB; default grey")
    max_values: int = Field(2**31, gt=0, description="frames x height x width x channels; a larger video is quarantined")
    blank: list[Box] = Field(default_factory=list, description="boxes [x0, y0, x1, y1] of burned-in text, made black")


def sources(location: Path, params: Params) -> list[Source]:
    look_up = patient_lookup(location, params)
    found = []
    for file in sorted((location / params.folder).rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        name = str(file.relative_to(location))
        known = look_up(name)
        pictures = sorted((location / params.masks / file.stem).glob("*")) if params.masks else []
        read = partial(_read, file, pictures, params)
        found.append(Source(name, (file, *pictures), known.patient, known.label, read, known.text, site=known.site))
    return found


def _read(file: Path, pictures: list[Path], params: Params) -> Volume:
    try:
        with av.open(str(file), options=OPTIONS) as container:
            if not container.streams.video:
                raise QuarantinedError("has no video stream")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            most = params.max_values // max(1, width * height * (3 if params.color else 1))
            too_large = f"more than {most} frames of {height}x{width}, over {params.max_values} values"
            if stream.frames > most or most == 0:
                raise QuarantinedError(f"declares {too_large}")
            frames: list[NDArray[np.uint8]] = []
            for frame in container.decode(stream):
                if len(frames) == most:  # many containers declare no length
                    raise QuarantinedError(f"has {too_large}")
                frames.append(frame.to_ndarray(format="rgb24" if params.color else "gray").astype(np.uint8, copy=False))
            rate, declared = stream.average_rate, stream.frames
    except FFmpegError as error:
        raise cannot("be decoded", error) from None
    if not frames:
        raise QuarantinedError("has no frames")
    if len(frames) < 0.9 * declared:  # a few frames too many are declared by many cameras
        raise QuarantinedError(f"is truncated: {len(frames)} of {declared} frames")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise QuarantinedError("changes its frame size")
    video = np.empty((len(frames), *frames[0].shape), np.uint8)
    frames.reverse()
    for slot in video:
        slot[...] = frames.pop()  # freed one by one: never two copies of a long video
    video = hidden(video, without_boxes((height, width), params.blank))
    masks = mask_pictures(by_frame(pictures, len(video)), video.shape[:3]) if pictures else None
    return Volume(video if params.color else video[..., None], masks, 1000 / float(rate) if rate else None)
