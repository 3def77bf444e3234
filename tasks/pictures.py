"""Clips as people look at them: contact sheets (PNG) and moving grids (animated WebP), with outlines of the masks.

Small frames are enlarged by whole factors with square pixels, so that nothing is smoothed that the clip does not hold.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image

from models.clip import UNKNOWN, to_float
from models.motion import optical_flow
from tasks.store import ClipStore
from tasks.tables import atomic_write

Pixels = NDArray[np.uint8]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)
"""Okabe and Ito (2008): told apart by colour-blind eyes. Class k has colour k - 1, round again after the last."""

_GAP_COLOUR = 24
_UNKNOWN_COLOUR = 110
_LOSSLESS_BYTES, _QUALITY = 160_000, 75


def panels(frames: Pixels, masks: Pixels | None = None, side: int = 144, most: int = 4) -> Pixels:
    """Clips as RGB, brought to about `side` pixels, with the masks' outlines when there are masks.

    Args:
        frames: (N, T, H, W, C), C of 1 or 3.
        masks: (N, T, H, W) label maps; `UNKNOWN` and background are not outlined.
        side: wanted length of the longer side; small frames are enlarged, large ones averaged down.
        most: times that they are enlarged at most; 1 leaves it to whatever shows the picture, which costs no bytes.

    Returns:
        (N, T, h, w, 3).

    Raises:
        ValueError: if frames have another number of axes or channels.
    """
    if frames.ndim != 5 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames have shape {frames.shape}; panels need (N, T, H, W, C) with C of 1 or 3")
    shown = _resize(np.broadcast_to(frames, (*frames.shape[:-1], 3)), side, most)
    if masks is None:
        return shown
    labels = _resize_labels(masks, side, most)
    for index, colour in enumerate(_edges(labels)):
        shown[colour] = PALETTE[index % len(PALETTE)]
    return shown


def painted(masks: Pixels, side: int = 144) -> Pixels:
    """(N, T, H, W) label maps as (N, T, h, w, 3): black background, one colour a class, grey where not annotated."""
    labels = _resize_labels(masks, side, most=4)
    colours = np.array([PALETTE[(label - 1) % len(PALETTE)] for label in range(256)], np.uint8)
    colours[0], colours[UNKNOWN] = 0, _UNKNOWN_COLOUR
    return colours[labels]


def moved(frames: Pixels, side: int = 144, most: int = 4, reach: float = 2) -> Pixels:
    """Motion of clips as colours, (N, T, H, W, C) -> (N, T, h, w, 3): hue is the direction to the next frame, brightness the
    distance in pixels up to `reach`; the last frame repeats the one before."""
    field = optical_flow(to_float(torch.from_numpy(frames)).movedim(-1, 2)).numpy()
    x, y = field[:, :, 0], field[:, :, 1]
    hue, strength = np.arctan2(y, x) / (2 * np.pi) % 1, np.minimum(np.hypot(x, y) / reach, 1)
    colours = (255 * hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.8), strength], -1))).round().astype(np.uint8)
    return _resize(np.concatenate([colours, colours[:, -1:]], 1), side, most)


def tile(clips: Pixels, columns: int, gap: int = 4) -> Pixels:
    """(N, T, h, w, 3) -> (T, H, W, 3): clips row by row, `columns` to a row, dark gaps and empty places."""
    number, length, height, width, _ = clips.shape
    rows = -(-number // columns)
    sheet = np.full((length, rows * (height + gap) - gap, columns * (width + gap) - gap, 3), _GAP_COLOUR, np.uint8)
    for place in range(number):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = clips[place]
    return sheet


def contact_sheet(frames: Pixels, masks: Pixels | None = None, columns: int = 8, side: int = 144) -> bytes:
    """PNG with a row for each clip and up to `columns` of its frames, evenly spread; arguments as in `panels`."""
    shown = np.unique(np.linspace(0, frames.shape[1] - 1, min(columns, frames.shape[1])).round().astype(int))
    clips = panels(frames[:, shown], None if masks is None else masks[:, shown], side)
    stills = clips.reshape(-1, 1, *clips.shape[2:])
    return png(tile(stills, columns=len(shown))[0])


def png(image: Pixels) -> bytes:
    """(H, W, 3) as PNG."""
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG", optimize=True)
    return held.getvalue()


def strips(clips: Pixels) -> Pixels:
    """(N, T, h, w, 3) -> (N h, T w, 3): a clip a row, its frames from left to right."""
    number, length, height, width, _ = clips.shape
    return clips.transpose(0, 2, 1, 3, 4).reshape(number * height, length * width, 3)


def webp(film: Pixels, frame_ms: int = 120) -> bytes:
    """(T, H, W, 3) as an endless animation: without loss while that takes at most 160 kB, else lossy and much smaller."""
    exact = _encode(film, frame_ms, lossless=True)
    return exact if len(exact) <= _LOSSLESS_BYTES else small_webp(film, frame_ms)


def small_webp(film: Pixels, frame_ms: int = 120) -> bytes:
    """(T, H, W, 3) as an endless animation for a page that holds many: lossy, a third of the bytes or less."""
    return _encode(film, frame_ms, lossless=False)


def data_uri(content: bytes, mime: str) -> str:
    """The bytes as a `data:` address, so that a page needs no file beside it."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def store_sheet(store: Path, clips: int = 8) -> str:
    """Contact sheet of a store's first clips as a `data:` address, outlined where the store has masks."""
    source = ClipStore.open(store)
    arrays = source.load(range(min(clips, len(source))))
    return data_uri(contact_sheet(arrays["frames"], arrays.get("masks")), "image/png")


def _encode(film: Pixels, frame_ms: int, lossless: bool) -> bytes:
    held = io.BytesIO()
    first, *rest = [Image.fromarray(image) for image in film]
    moving = {"save_all": True, "append_images": rest, "duration": frame_ms, "loop": 0}
    first.save(held, "WEBP", lossless=lossless, quality=_QUALITY, method=4, **moving)
    return held.getvalue()


def clip_picture(arrays: dict[str, Pixels], path: Path) -> Path:
    """Write one clip, its `frames` (1, T, H, W, C) plain and outlined by its `masks` (1, T, H, W), as a moving picture."""
    frames, masks = arrays["frames"], arrays["masks"]
    atomic_write(path, webp(tile(np.concatenate([panels(frames), panels(frames, masks)]), columns=2)))
    return path


def _factor(height: int, width: int, side: int, most: int) -> int:
    """Enlargement of 1 to `most`, or the negative of a reduction."""
    longer = max(height, width)
    return min(most, max(1, round(side / longer))) if longer <= 1.5 * side else -round(longer / side)


def _resize(images: Pixels, side: int, most: int) -> Pixels:
    """Always a copy."""
    height, width = images.shape[-3:-1]
    factor = _factor(height, width, side, most)
    if factor > 0:
        return images.repeat(factor, -3).repeat(factor, -2)
    return _blocks(images, -factor).mean((-4, -2)).round().astype(np.uint8)


def _resize_labels(masks: Pixels, side: int, most: int) -> Pixels:
    """Enlarged as frames are; reduced by the highest label of each block, or thin wires would go."""
    factor = _factor(masks.shape[-2], masks.shape[-1], side, most)
    if factor > 0:
        return masks.repeat(factor, -2).repeat(factor, -1)
    highest: Pixels = _blocks(masks[..., None], -factor).max((-4, -2))[..., 0]
    return highest


def _blocks(images: Pixels, factor: int) -> Pixels:
    """(..., H, W, C) -> (..., h, factor, w, factor, C); what is left over at the far borders is cut off."""
    *lead, height, width, channels = images.shape
    rows, columns = height // factor, width // factor
    cut = images[..., : rows * factor, : columns * factor, :]
    return cut.reshape(*lead, rows, factor, columns, factor, channels)


def _edges(labels: Pixels) -> list[NDArray[np.bool_]]:
    """For each class up to the highest: its pixels that touch another label above, below, left or right."""
    padded = np.pad(labels, [(0, 0)] * (labels.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    inner = padded[..., 1:-1, 1:-1]
    neighbours = (padded[..., :-2, 1:-1], padded[..., 2:, 1:-1], padded[..., 1:-1, :-2], padded[..., 1:-1, 2:])
    edge = np.logical_or.reduce([inner != neighbour for neighbour in neighbours])
    known = labels[labels != UNKNOWN]
    highest = int(known.max()) if known.size else 0
    return [edge & (labels == label) for label in range(1, highest + 1)]
