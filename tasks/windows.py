"""From a volume of any length and size to clips of one shape."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.clip import UNKNOWN
from tasks.params import DatasetParams
from tasks.readers import QuarantinedError, Volume

Fit = Literal["pad", "stretch"]
Pixels = NDArray[np.uint8]


def window_starts(frames: int, length: int, stride: int, most: int | None = None, hop: int | None = None) -> list[int]:
    """First frames of the largest number of non-overlapping windows that fit, spread evenly (Ctrl-GenAug's release); or, with
    a `hop`, of one window every so many frames, of which `most` are an even choice.

    A window spans (length - 1) * stride + 1 frames; what is left over is shared out before, between and after. A volume
    shorter than one window has one, to be padded at its end, if at least half of the clip's frames are real.

    Raises:
        QuarantinedError: if even that is not so.
    """
    span = (length - 1) * stride + 1
    if frames < span:
        if (real := -(-frames // stride)) * 2 < length:
            raise QuarantinedError(f"has {frames} frames, {real} of a clip's {length} at stride {stride}; half is the least")
        return [0]
    if hop is not None:
        every = list(range(0, frames - span + 1, hop))
        return every if most is None or most >= len(every) else [every[len(every) * place // most] for place in range(most)]
    count = min(frames // span, most or frames)
    left = frames - count * span
    return [round(left * (number + 1) / (count + 1)) + number * span for number in range(count)]


def check_volume(volume: Volume, classes: int) -> None:
    """Raises QuarantinedError for no pixels or non-finite ones, and for masks not 0..K or of another shape."""
    frames, masks = volume.frames, volume.masks
    if frames.ndim != 4 or frames.size == 0:
        raise QuarantinedError("has no pixels")
    if np.issubdtype(frames.dtype, np.floating) and not np.isfinite(frames).all():
        raise QuarantinedError("has pixels that are not finite numbers")
    if masks is None:
        return
    if masks.shape != frames.shape[:3]:
        raise QuarantinedError(f"masks are {masks.shape}, frames are {frames.shape[:3]}")
    if wrong := [label for label in np.unique(masks).tolist() if classes < label != UNKNOWN]:
        raise QuarantinedError(f"mask has labels {wrong}, but the data set names {classes} classes; labels are 0..{classes}")


def cut(volume: Volume, start: int, dataset: DatasetParams) -> tuple[Pixels, Pixels]:
    """One clip of a checked volume: frames (T, H, W, C) and masks (T, H, W), scaled, resized and padded.

    Missing frames at the end are black, their masks background, or UNKNOWN if no frame of the window is annotated.

    Raises:
        QuarantinedError: if every pixel of the window has the same value.
    """
    part = slice(start, start + (dataset.clip_frames - 1) * dataset.stride + 1, dataset.stride)
    frames = volume.frames[part]
    masks = volume.masks[part] if volume.masks is not None else np.full(frames.shape[:3], UNKNOWN, np.uint8)
    if frames.min() == frames.max():
        raise QuarantinedError(f"is constant from frame {start} on: every pixel has the same value")
    pictures, labels = resize(scale(frames, dataset.window), masks, dataset.frame_size, dataset.fit)
    if missing := dataset.clip_frames - len(pictures):
        annotated = (labels != UNKNOWN).reshape(len(labels), -1).all(1).any()
        pictures = np.pad(pictures, ((0, missing), *[(0, 0)] * 3))
        labels = np.pad(labels, ((0, missing), (0, 0), (0, 0)), constant_values=0 if annotated else UNKNOWN)
    return pictures, labels


def scale(frames: NDArray[Any], window: tuple[float, float]) -> Pixels:
    """Percentiles `window` of the clip to 0 and 255, over all frames together, so that brightness may change in time."""
    values = frames.astype(np.float32)
    low, high = np.percentile(values, window)
    if high <= low:  # fewer bright pixels than the window cuts off
        low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8)


def resize(frames: Pixels, masks: Pixels, size: tuple[int, int], fit: Fit) -> tuple[Pixels, Pixels]:
    """Frames (F, H, W, C) by antialiased bilinear interpolation, masks (F, H, W) so that thin structures survive.

    A label wins a pixel of which it covers at least half. If that would lose more than half of the label's area, as it does
    for a wire that becomes thinner than a pixel, 0.4 of what a two-pixel structure covers at most is enough: less than the
    half it covers of either of two pixels that it runs between, so it stays in one piece, and one to two pixels wide. A frame
    with any UNKNOWN pixel becomes UNKNOWN as a whole.

    Args:
        fit: `pad` keeps the aspect ratio and fills up with black and background; `stretch` does not keep it.
    """
    height, width = frames.shape[1:3]
    if (height, width) == tuple(size):
        return frames, masks
    target = fitted((height, width), size, fit)
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float()
    small = functional.interpolate(pictures, target, mode="bilinear", antialias=True, align_corners=False)
    resized = small.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    labels = _resize_masks(masks, target)
    top, left = (size[0] - target[0]) // 2, (size[1] - target[1]) // 2
    borders = ((0, 0), (top, size[0] - target[0] - top), (left, size[1] - target[1] - left))
    unknown = (labels == UNKNOWN).reshape(len(labels), -1).any(1)
    padded = np.pad(labels, borders)
    padded[unknown] = UNKNOWN
    return np.pad(resized, (*borders, (0, 0))), padded


def fitted(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """The height and width that `resize` gives a frame of this shape, before it fills up."""
    if fit == "stretch":
        return size
    ratio = min(size[0] / shape[0], size[1] / shape[1])
    return max(1, min(size[0], round(shape[0] * ratio))), max(1, min(size[1], round(shape[1] * ratio)))


def _resize_masks(masks: Pixels, target: tuple[int, int]) -> Pixels:
    """The rule of `resize`, (F, H, W) -> (F, *target)."""
    shrink = max(1.0, masks.shape[1] / target[0], masks.shape[2] / target[1])
    out = np.zeros((len(masks), *target), np.uint8)
    best = np.zeros(out.shape, np.float32)
    for label in [label for label in np.unique(masks).tolist() if label not in (0, UNKNOWN)]:
        here = torch.from_numpy((masks == label).astype(np.float32))[:, None]
        cover = functional.interpolate(here, target, mode="bilinear", antialias=True, align_corners=False)[:, 0].numpy()
        thin = (cover >= 0.5).sum() < 0.5 * cover.sum()
        wins = (cover >= (min(0.5, 0.8 / shrink) if thin else 0.5)) & (cover > best)
        out[wins], best[wins] = label, cover[wins]
    out[(masks == UNKNOWN).reshape(len(masks), -1).any(1)] = UNKNOWN
    return out
