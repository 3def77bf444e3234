"""Train, validation and test by patient, patients joined by near-duplicate clips kept together; a leak is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch.nn import functional

from models.seeding import derive_seed
from tasks.params import SplitParams
from tasks.records import ClipRecord, Split

SIDE = 16
"""Blocks along each side of a thumbnail."""
TIMES = 4
"""Frames of a thumbnail."""
_SHIFTS = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def thumbnails(frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(T, H, W, C) -> (7, 1024): a clip's inner part, then that part one frame or pixel further in every direction.

    Each row is a unit vector, so that products are correlations: block means of four frames less what is smooth over a block
    and its neighbours. Smooth anatomy is alike in all patients; detail is one's own. Measured: between different patients at
    most 0.77 (501 hippocampus clips), 0.55 (180 phantom clips) and 0.92 (129 clips of lung ultrasound); copies with JPEG
    quality 40, another brightness, gamma 0.7, noise of 8 grey values, or shifted by one frame or pixel, 0.98 and more.
    """
    grey = frames.astype(np.float32).mean(-1)
    steps = [shift for shift in _SHIFTS if all(size >= 3 or not step for size, step in zip(grey.shape, shift, strict=True))]
    inner = [(1, size - 1) if size >= 3 else (0, size) for size in grey.shape]
    time = np.linspace(inner[0][0], inner[0][1] - 1, TIMES).round().astype(int)
    views = np.zeros((len(_SHIFTS), TIMES * SIDE * SIDE), np.float32)
    for row, (t, y, x) in enumerate(steps):
        part = grey[time + t, inner[1][0] + y : inner[1][1] + y, inner[2][0] + x : inner[2][1] + x]
        blocks = functional.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(part)), (SIDE, SIDE)).numpy()
        detail = blocks - gaussian_filter(blocks, (0, 1, 1))
        flat = (detail - detail.mean((1, 2), keepdims=True)).ravel()
        norm = float(np.linalg.norm(flat))
        views[row] = flat / norm if norm > 1 else 0  # less than rounding to whole grey values makes
    return views.astype(np.float16)


def groups_of(patients: Sequence[str], views: NDArray[np.float16], threshold: float, block: int = 1024) -> list[int]:
    """Group number of every clip: patients joined, directly or in a chain, by a pair of clips at or above the threshold.

    Blocked matrix products: memory grows with the clips, not with their square.

    Args:
        views: (N, 7, D) as `thumbnails` gives them; each clip itself is compared with every view of the other.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    pairs = [np.stack([index, index])]
    for first in range(0, len(views), block):
        rows = views[first : first + block, 0].astype(np.float32)
        for second in range(first, len(views), block):
            columns = views[second : second + block].astype(np.float32)
            closest = np.full((len(rows), len(columns)), -1, np.float32)
            for view in range(columns.shape[1]):
                np.maximum(closest, rows @ columns[:, view].T, out=closest)
            left, right = np.nonzero(closest >= threshold)
            pairs.append(np.stack([index[left + first], index[right + second]]))
    left, right = np.unique(np.concatenate(pairs, 1), axis=1)
    _, group = connected_components(coo_matrix((np.ones(len(left)), (left, right)), shape=(len(names),) * 2), directed=False)
    return [int(number) for number in group[index]]


def split_groups(groups: Sequence[int], patients: Sequence[str], labels: Sequence[str | None], shares: SplitParams,
                 seed: int) -> dict[int, Split]:
    """Which split each group is in: shuffled by the seed, then dealt so that shares of patients come as near as groups allow.

    Where every group shows one class only, as when class is tied to patient, each class is dealt by itself, so that every split
    has all of them; classes of fewer groups than there are splits are dealt together.

    Args:
        groups, patients, labels: of every clip.

    Raises:
        ValueError: if there are fewer groups than splits asked for.
    """
    size: dict[int, int] = {}
    for group, _ in sorted(set(zip(groups, patients, strict=True))):
        size[group] = size.get(group, 0) + 1
    wanted: dict[Split, float] = {"train": shares.train, "val": shares.val, "test": shares.test}
    wanted = {name: share for name, share in wanted.items() if share > 0}
    if len(size) < len(wanted):
        raise ValueError(f"dataset.split: {len(size)} patient groups cannot fill {len(wanted)} splits ({', '.join(wanted)}); "
                         "add patients, raise near_duplicate, or set a share to 0")
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(sorted(size)).tolist()
    dealt: dict[int, Split] = {}
    for members in _strata(order, groups, labels, len(wanted)):
        dealt |= _deal(members, size, wanted)
    return dealt


def _strata(order: Sequence[int], groups: Sequence[int], labels: Sequence[str | None], least: int) -> list[list[int]]:
    """The groups of each class that has `least`, then the others; all together if a group shows two classes or none."""
    shown: dict[int, set[str | None]] = {group: set() for group in order}
    for group, label in zip(groups, labels, strict=True):
        shown[group].add(label)
    if any(len(classes) != 1 or None in classes for classes in shown.values()):
        return [list(order)]
    classes: dict[str | None, list[int]] = {}
    for group in order:
        classes.setdefault(next(iter(shown[group])), []).append(group)
    common = [members for members in classes.values() if len(members) >= least]
    apart = {group for members in common for group in members}
    return [*common, [group for group in order if group not in apart]]


def _deal(order: Sequence[int], size: dict[int, int], wanted: dict[Split, float]) -> dict[int, Split]:
    total = sum(size[group] for group in order)
    got = dict.fromkeys(wanted, 0)
    dealt: dict[int, Split] = {}
    for turn, group in enumerate(order):
        empty = [name for name in wanted if got[name] == 0]
        left = len(order) - turn
        pool = empty if len(empty) == left else list(wanted)  # the last groups go where nothing is yet
        chosen = max(pool, key=lambda name: wanted[name] * total - got[name])
        dealt[group] = chosen
        got[chosen] += size[group]
    return dealt


def annotated_patients(candidates: Sequence[str], count: int | None, seed: int) -> set[str]:
    """The training patients that keep their masks: `count` of those that have any, drawn by the seed; None keeps all.

    Raises:
        ValueError: if fewer have masks than are asked for.
    """
    pool = sorted(set(candidates))
    if count is None:
        return set(pool)
    if count > len(pool):
        raise ValueError(f"dataset.annotated_patients is {count}, but only {len(pool)} training patients have masks; "
                         "lower it or give null")
    return set(np.random.default_rng(derive_seed(seed, "annotated")).permutation(pool)[:count].tolist())


def check_no_leak(records: Sequence[ClipRecord]) -> None:
    """Raises ValueError if a patient, a near-duplicate group or a source file is in two splits."""
    for what in ("patient", "group", "source"):
        seen: dict[object, str] = {}
        for record in records:
            key = getattr(record, what)
            if seen.setdefault(key, record.split) != record.split:
                raise ValueError(f"leak: {what} {key} is in both {seen[key]} and {record.split}; split by patient and group")
