"""One picture of a user's own becomes clips: read, scaled as the training clips were, animated, written as a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from models import plugin
from models.clip import UNKNOWN, to_float, to_uint8
from models.generators import StillAnimator, build
from tasks.checkpoints import RECORD, load_checkpoint
from tasks.limits import limited
from tasks.pictures import Pixels
from tasks.readers import QuarantinedError
from tasks.readers.images import picture
from tasks.tables import atomic_path, read_json
from tasks.windows import resize, scale

SHORT_SIDE = 256
"""Pixels; smaller clips are enlarged by a whole factor, every pixel a square, so that players show what was made."""


def animate(image: Path, checkpoint: Path, out: Path, seeds: Sequence[int] = (0,), sampling: dict[str, Any] | None = None,
            frames_per_second: float = 10) -> Pixels:
    """Write `out`, a video of the clips of all seeds side by side, and return it: (T, h, w, 3) uint8.

    Args:
        image: any picture PIL reads; shown in grey if the checkpoint's clips are.
        checkpoint: folder of a generator that animates stills, of kind lddm or cinn.
        sampling: options of its `Sampling`.

    Raises:
        ValueError: for a picture that cannot be read, a generator of another kind or without one of these options, or a format
            that is no video.
    """
    if out.suffix.lower() not in {".mp4", ".mov", ".mkv"}:
        raise ValueError(f"{out}: {out.suffix or 'no suffix'} is no video that is written here; name it .mp4, .mov or .mkv")
    made = load_checkpoint(checkpoint)
    generator = build(made.kind, made.params, made)
    if not isinstance(generator, StillAnimator):
        raise ValueError(f"{checkpoint}: its generator is {made.kind}, which does not animate stills; give one of kind lddm or "
                         "cinn")
    if strange := set(sampling or {}) - set(known := plugin.load("models.generators", made.kind).Sampling.model_fields):
        raise ValueError(f"{checkpoint}: its generator is {made.kind}, which knows no {', '.join(sorted(strange))}; it has "
                         f"{', '.join(known)}")
    _, channels, height, width = made.facts["clip_shape"]
    scaling = read_json(checkpoint / RECORD)["trained_on"]["scaling"]
    try:
        shown = np.load(BytesIO(limited(partial(_saved, image, "RGB" if channels == 3 else "L"))))
    except QuarantinedError as error:
        raise ValueError(f"{image}: {error}") from None
    still = scale(shown.reshape(1, *shown.shape[:2], channels), tuple(scaling["window"]))
    still, _ = resize(still, np.full(still.shape[:3], UNKNOWN, np.uint8), (height, width), scaling["fit"])
    stills = to_float(torch.from_numpy(still).movedim(-1, 1)).expand(len(seeds), -1, -1, -1)
    options = plugin.params("models.generators", {"kind": made.kind, **(sampling or {})}, "Sampling")
    clips = generator.animate(stills, list(seeds), options)  # (S, T, C, H, W)
    pixels = to_uint8(clips).expand(-1, -1, 3, -1, -1).movedim(2, -1).numpy()
    film: Pixels = np.concatenate(list(pixels), 2)
    write_video(out, film, frames_per_second)
    return film


def _saved(image: Path, mode: str) -> bytes:
    """The decoded picture in numpy's own format."""
    content = BytesIO()
    np.save(content, picture(image, mode), allow_pickle=False)
    return content.getvalue()


def write_video(out: Path, film: Pixels, frames_per_second: float) -> None:
    """H.264 of (T, h, w, 3) uint8, enlarged to at least `SHORT_SIDE`; the file appears whole or not at all."""
    factor = max(1, -(-SHORT_SIDE // min(film.shape[1:3])))
    large = film.repeat(factor, 1).repeat(factor, 2)
    large = np.pad(large, ((0, 0), (0, large.shape[1] % 2), (0, large.shape[2] % 2), (0, 0)))  # H.264 wants even sides
    with atomic_path(out, large.nbytes) as path, av.open(str(path), "w", format=_container(out)) as file:
        stream: Any = file.add_stream("libx264", rate=Fraction(frames_per_second).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = large.shape[1], large.shape[2], "yuv420p"
        stream.options = {"crf": "12"}
        for frame in large:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def _container(out: Path) -> str:
    return {".mkv": "matroska"}.get(out.suffix.lower(), out.suffix.lower()[1:])
