"""Video files (mp4, mov, avi, mpeg, ...) through PyAV, with an optional folder of mask pictures a video."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from pydantic import Field

from tasks.patients import PatientParams, patient_lookup
from tasks.readers import Quarantined, Source, Volume
from tasks.readers.images import mask_pictures

SUFFIXES = {".mp4", ".mov", ".avi", ".mpeg", ".mpg", ".m4v", ".mkv", ".wmv", ".gif"}


class Params(PatientParams):
    folder: str = Field(".", description="relative to the data set's location; searched in depth")
    masks: str | None = Field(None, description="folder with one folder of pictures a video, named as the video without suffix")
    color: bool = Field(False, description="keep RGB; default grey")
    max_frames: int = Field(20000, gt=0, description="a longer video is quarantined")
    max_pixels: int = Field(4096 * 4096, gt=0, description="a video with larger frames is quarantined unread")


def sources(location: Path, params: Params) -> list[Source]:
    look_up = patient_lookup(location, params)
    found = []
    for file in sorted((location / params.folder).rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        name = str(file.relative_to(location))
        patient, label = look_up(name) or ("", None)
        pictures = sorted((location / params.masks / file.stem).glob("*")) if params.masks else []
        found.append(Source(name, (file, *pictures), patient, label, partial(_read, file, pictures, params)))
    return found


def _read(file: Path, pictures: list[Path], params: Params) -> Volume:
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise Quarantined("has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context.width * stream.codec_context.height > params.max_pixels:
                raise Quarantined(f"declares frames of {stream.codec_context.width}x{stream.codec_context.height} pixels")
            frames = []
            for frame in container.decode(stream):
                if len(frames) == params.max_frames:
                    raise Quarantined(f"has more than {params.max_frames} frames")
                frames.append(frame.to_ndarray(format="rgb24" if params.color else "gray"))
            rate = stream.average_rate
    except FFmpegError as error:
        raise Quarantined(f"cannot be decoded: {error.strerror or error}") from None
    if not frames:
        raise Quarantined("has no frames")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise Quarantined("changes its frame size")
    video = np.stack(frames)
    masks = mask_pictures(pictures, video.shape[:3]) if pictures else None
    return Volume(video if params.color else video[..., None], masks, 1000 / float(rate) if rate else None)
