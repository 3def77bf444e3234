"""How well a label map matches the annotation: overlap in pixels of the clip, distances in pixels of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from models.clip import UNKNOWN

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Empty = Literal["diagonal", "nan"]
On = Literal["skeleton", "mask"]

OVERLAPS = ("dice", "sensitivity", "precision")
DISTANCES = ("hausdorff", "g2re", "r2ge")
METRICS = (*OVERLAPS, *DISTANCES)
MEAN = "mean"
"""The label under which the mean over classes stands."""


def clip_metrics(result: Labels, truth: Labels, classes: Sequence[str], *, distance_on: On = "mask",
                 empty_distance: Empty = "diagonal") -> dict[str, dict[str, float]]:
    """Every metric of one clip, by class and as their mean.

    Frames of `truth` that hold an `UNKNOWN` pixel are left out. The mean is over the classes that `truth` or `result`
    shows somewhere in the clip (over all, if neither shows any), and skips what is undefined.

    Args:
        result, truth: (T, H, W) label maps; 0 background, 1..K the classes.
        classes: names of the labels 1..K.
        distance_on: what G2RE and R2GE compare; the Hausdorff distance is always between whole masks.
        empty_distance: distance of a frame where one side is empty; see `frame_distances`.

    Returns:
        {class or "mean": {metric: value}}. "one_sided_frames" counts the frames where one side alone is empty (for
        the mean: their sum over classes).

    Raises:
        ValueError: if the shapes differ or no frame is annotated.
    """
    if result.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"result has shape {result.shape}, truth {truth.shape}; both must be the same (T, H, W)")
    annotated = (truth != UNKNOWN).all((1, 2))
    if not annotated.any():
        raise ValueError("truth: no frame is annotated; score only annotated clips")
    result, truth = result[annotated], truth[annotated]
    table: dict[str, dict[str, float]] = {}
    present: list[str] = []
    for label, name in enumerate(classes, start=1):
        found, wanted = result == label, truth == label
        distances, one_sided = frame_distances(found, wanted, distance_on=distance_on, empty_distance=empty_distance)
        table[name] = overlap(found, wanted) | {metric: _mean(values) for metric, values in distances.items()}
        table[name]["one_sided_frames"] = float(one_sided)
        if found.any() or wanted.any():
            present.append(name)
    rows = [table[name] for name in present or classes]
    table[MEAN] = {metric: _mean(np.array([row[metric] for row in rows])) for metric in METRICS}
    table[MEAN]["one_sided_frames"] = sum(row["one_sided_frames"] for row in rows)
    return table


def overlap(result: Mask, truth: Mask) -> dict[str, float]:
    """Dice, sensitivity and precision from pixel counts over all of two boolean arrays of one shape.

    Empty cases: Dice is 1 when both are empty. Sensitivity is undefined (NaN) without a true pixel. Precision without
    a found pixel is 0 if there was something to find (so that finding nothing is never an escape), otherwise NaN.
    """
    hits, found, wanted = int((result & truth).sum()), int(result.sum()), int(truth.sum())
    return {
        "dice": 2 * hits / (found + wanted) if found + wanted else 1.0,
        "sensitivity": hits / wanted if wanted else float("nan"),
        "precision": hits / found if found else (0.0 if wanted else float("nan")),
    }


def frame_distances(result: Mask, truth: Mask, *, distance_on: On = "mask",
                    empty_distance: Empty = "diagonal") -> tuple[dict[str, npt.NDArray[np.float64]], int]:
    """Distances of each frame between (T, H, W) masks, in pixels between pixel centres.

    hausdorff: the larger of the two directed maximum distances between the full pixel sets (not their outlines).
    g2re: mean distance from each true pixel to the nearest found one (misses); r2ge: from each found pixel to the
    nearest true one (false alarms); SF-VD names both, both are between skeletons or whole masks as `distance_on` says.
    Where both sides are empty every distance is 0; where one is, "diagonal" gives the distance between opposite corners
    (the largest there can be) and "nan" gives NaN.

    Returns:
        {"hausdorff", "g2re", "r2ge"}: (T,) each; and the number of frames where one side alone is empty.
    """
    any_found, any_wanted = result.any((1, 2)), truth.any((1, 2))
    one_sided = any_found != any_wanted
    both = any_found & any_wanted
    fallback = float(np.hypot(*np.subtract(truth.shape[1:], 1))) if empty_distance == "diagonal" else float("nan")
    values = {name: np.where(one_sided, fallback, 0.0) for name in DISTANCES}
    if both.any():
        found, wanted = result[both], truth[both]
        to_found, to_wanted = _distance_to(found), _distance_to(wanted)
        values["hausdorff"][both] = np.maximum(
            np.where(wanted, to_found, 0).max((1, 2)), np.where(found, to_wanted, 0).max((1, 2))
        )
        if distance_on == "skeleton":
            found, wanted = skeletons(found), skeletons(wanted)
            to_found, to_wanted = _distance_to(found), _distance_to(wanted)
        values["g2re"][both] = np.where(wanted, to_found, 0).sum((1, 2)) / wanted.sum((1, 2))
        values["r2ge"][both] = np.where(found, to_wanted, 0).sum((1, 2)) / found.sum((1, 2))
    return values, int(one_sided.sum())


def skeletons(masks: Mask) -> Mask:
    """The skeleton (Zhang and Suen 1984) of each frame of (T, H, W) masks; never empty where the mask is not.

    One call for all frames: they are laid below each other with a blank margin, across which nothing thins.
    """
    frames, height, width = masks.shape
    sheet = np.pad(masks, ((0, 0), (1, 1), (1, 1))).reshape(frames * (height + 2), width + 2)
    thin = skeletonize(sheet).reshape(frames, height + 2, width + 2)[:, 1:-1, 1:-1]
    vanished = masks.any((1, 2)) & ~thin.any((1, 2))
    return np.where(vanished[:, None, None], masks, thin)


def _distance_to(masks: Mask) -> npt.NDArray[np.float64]:
    """(T, H, W): of each pixel, the distance to the nearest pixel of its own frame's mask; no frame may be empty.

    One transform for all frames: their spacing is so wide that the nearest pixel is never in another frame.
    """
    spacing = 4.0 * sum(masks.shape[1:])
    return np.asarray(distance_transform_edt(~masks, sampling=(spacing, 1.0, 1.0)), np.float64)


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of what is defined; NaN if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
