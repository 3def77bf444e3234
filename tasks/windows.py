"""From a volume of any length and size to clips of one shape."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.clip import UNKNOWN
from tasks.params import DatasetParams
from tasks.readers import Quarantined, Volume

Fit = Literal["pad", "stretch"]


def window_starts(frames: int, length: int, stride: int, most: int | None = None) -> list[int]:
    """First frames of the largest number of non-overlapping windows that fit, spread evenly (Ctrl-GenAug's release).

    A window spans (length - 1) * stride + 1 frames; what is left over is shared out before, between and after. A volume with
    fewer frames than one window has one, padded at its end with black, if at least half of the clip's frames are real.

    Raises:
        Quarantined: if even that is not so.
    """
    span = (length - 1) * stride + 1
    if frames < span:
        if (real := -(-frames // stride)) * 2 < length:
            raise Quarantined(f"has {frames} frames, which gives {real} of a clip's {length}; at least half are needed")
        return [0]
    count = min(frames // span, most or frames)
    left = frames - count * span
    return [round(left * (number + 1) / (count + 1)) + number * span for number in range(count)]


def clips_of(volume: Volume, dataset: DatasetParams) -> list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """All clips of a volume: (first frame, frames (T, H, W, C) uint8, masks (T, H, W) uint8).

    Raises:
        Quarantined: for too short, constant or non-finite volumes and for labels outside 0..K.
    """
    frames = volume.frames
    if frames.size == 0:
        raise Quarantined("has no pixels")
    if not np.isfinite(frames).all():
        raise Quarantined("has pixels that are not finite numbers")
    masks = volume.masks if volume.masks is not None else np.full(frames.shape[:3], UNKNOWN, np.uint8)
    if masks.shape != frames.shape[:3]:
        raise Quarantined(f"masks are {masks.shape}, frames are {frames.shape[:3]}")
    labels = np.unique(masks)
    if wrong := [int(label) for label in labels if label != UNKNOWN and label > len(dataset.classes)]:
        raise Quarantined(f"mask has labels {wrong}, but the data set has {len(dataset.classes)} classes")
    length, stride = dataset.clip_frames, dataset.stride
    made = []
    for start in window_starts(len(frames), length, stride, dataset.clips_per_source):
        part = slice(start, start + (length - 1) * stride + 1, stride)
        pictures, labels = frames[part], masks[part]
        if pictures.min() == pictures.max():
            raise Quarantined("is constant: every pixel has the same value")
        scaled = scale(pictures, dataset.window)
        pictures, labels = resize(scaled, labels, dataset.frame_size, dataset.fit)
        if (short := length - len(pictures)) > 0:
            pictures = np.concatenate([pictures, np.zeros((short, *pictures.shape[1:]), np.uint8)])
            labels = np.concatenate([labels, np.zeros((short, *labels.shape[1:]), np.uint8)])
        made.append((start, pictures, labels))
    return made


def scale(frames: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Percentiles `window` of the clip to black and white, over all frames together, so that brightness may change in time."""
    values = frames.astype(np.float32)
    low, high = np.percentile(values, window)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8)


def resize(frames: NDArray[np.uint8], masks: NDArray[np.uint8], size: tuple[int, int], fit: Fit) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames by antialiased bilinear interpolation, masks so that thin structures survive.

    A label wins a pixel if it covers at least half of what a two-pixel structure of it could cover there; nearest-neighbour
    sampling would cut a thin wire into dots. `pad` keeps the aspect ratio and fills with black, `stretch` does not.
    """
    height, width = frames.shape[1:3]
    if (height, width) == tuple(size):
        return frames, masks
    target = size if fit == "stretch" else _inside((height, width), size)
    pictures = torch.from_numpy(frames).movedim(-1, 1).float()
    small = functional.interpolate(pictures, target, mode="bilinear", antialias=True, align_corners=False)
    labels = _resize_masks(masks, target)
    done = small.clamp(0, 255).round().to(torch.uint8).movedim(1, -1).numpy()
    if target == tuple(size):
        return np.ascontiguousarray(done), labels
    top, left = (size[0] - target[0]) // 2, (size[1] - target[1]) // 2
    borders = ((0, 0), (top, size[0] - target[0] - top), (left, size[1] - target[1] - left))
    unknown = (masks == UNKNOWN).reshape(len(masks), -1).all(1)
    padded = np.pad(labels, borders)
    padded[unknown] = UNKNOWN
    return np.pad(done, (*borders, (0, 0))), padded


def _inside(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    ratio = min(size[0] / shape[0], size[1] / shape[1])
    return max(1, min(size[0], round(shape[0] * ratio))), max(1, min(size[1], round(shape[1] * ratio)))


def _resize_masks(masks: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.uint8]:
    shrink = max(1.0, masks.shape[1] / target[0], masks.shape[2] / target[1])
    bar = 0.5 * min(1.0, 2 / shrink)  # a structure two source pixels wide covers 2 / shrink of a target pixel
    labels = [int(label) for label in np.unique(masks) if label not in (0, UNKNOWN)]
    unknown = (masks == UNKNOWN).reshape(len(masks), -1).any(1)
    out = np.zeros((len(masks), *target), np.uint8)
    best = np.full(out.shape, bar, np.float32)
    for label in labels:
        cover = functional.interpolate(torch.from_numpy((masks == label).astype(np.float32))[:, None], target, mode="bilinear",
                                       antialias=True, align_corners=False)[:, 0].numpy()
        wins = cover >= best
        out[wins], best[wins] = label, cover[wins]
    out[unknown] = UNKNOWN
    return out
