"""A film a clip that any player shows, H.264 in MP4, its masks exactly, FFV1 in Matroska. What films lose is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tasks.exports import SHOWN_PER_SECOND, Cells, Clip
from tasks.tables import atomic_path

OPENED_BY = """any player; in Python:

```python
import av
frames = [frame.to_ndarray(format="rgb24") for frame in av.open("frames/CLIP_ID.mp4").decode(video=0)]
masks = [frame.to_ndarray(format="gray") for frame in av.open("masks/CLIP_ID.mkv").decode(video=0)]  # exactly the release's
```"""
LOSES = ("Films are compressed with loss: `psnr_db` in manifest.csv is what PyAV decodes against the released pixels, all "
         "frames of a clip together. Masks are exact.")

_ENCODERS = {"libx264": {"qp": "12", "preset": "medium", "threads": "1"}, "mpeg4": {"qmin": "1", "qmax": "2", "threads": "1"}}
"""The first that this PyAV has is taken. One thread and a constant quantiser, so that equal clips are equal bytes: x264's rate
control (`crf`) reads beyond frames whose sides are no multiple of 16, so that one in five came out otherwise."""


def write(part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]:
    rate = Fraction(_rate(facts)).limit_denominator(1000)
    rows = []
    for clip in clips:
        film, masks = Path("frames") / f"{clip.clip_id}.mp4", Path("masks") / f"{clip.clip_id}.mkv"
        encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        given = "gray" if clip.frames.shape[-1] == 1 else "rgb24"
        with atomic_path(out / film) as partial:
            _encode(partial, "mp4", encoder, "yuv420p", _ENCODERS[encoder], _even(clip.frames), given, rate)
            decoded = _decode(partial, given)
        with atomic_path(out / masks) as partial:
            _encode(partial, "matroska", "ffv1", "gray", {"threads": "1"}, clip.masks, "gray", rate)
        height, width = clip.frames.shape[1:3]
        psnr = psnr_db(clip.frames, decoded.reshape(*decoded.shape[:3], -1)[:, :height, :width])
        rows.append({"file": str(film), "mask_file": str(masks), "psnr_db": f"{psnr:.2f}"})
    return rows


def heading(facts: Mapping[str, Any], rows: list[Cells]) -> str:
    values = [float(row["psnr_db"]) for row in rows]
    shown = "" if facts["clip"].get("frame_time_ms") else (
        f" The release does not know how long a frame lasts: they are shown at {_rate(facts):g} a second.")
    return (f"Films with loss: their PSNR against the released pixels is {np.median(values):.1f} dB in the median clip, "
            f"{min(values):.1f} dB in the worst (range 0 to infinity, higher is nearer; n = {len(values)} clips, all frames "
            f"of each). Frames of odd height or width have their last row or column twice: manifest.csv has the "
            f"clip's own `height` and `width`.{shown}")


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of uint8 pixels, 10 log10(255^2 / mean squared difference); infinite for equal ones."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def _rate(facts: Mapping[str, Any]) -> float:
    milliseconds = facts["clip"].get("frame_time_ms")
    return 1000 / milliseconds if milliseconds else SHOWN_PER_SECOND


def _even(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Subsampled colour wants even sides."""
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")


def _encode(path: Path, container: str, encoder: str, pixels: str, options: dict[str, str], frames: NDArray[np.uint8],
            given: str, rate: Fraction) -> None:
    """(T, H, W), (T, H, W, 1) or (T, H, W, 3) as a film."""
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact"}) as file:
        stream: Any = file.add_stream(encoder, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.options = frames.shape[1], frames.shape[2], pixels, options
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for frame in frames[..., 0] if given == "gray" and frames.ndim == 4 else frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=given)))
        file.mux(stream.encode())


def _decode(path: Path, wanted: str) -> NDArray[np.uint8]:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format=wanted) for frame in file.decode(video=0)])
