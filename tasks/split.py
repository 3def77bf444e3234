"""Train, validation and test by patient, patients joined by near-duplicate clips kept together; a leak is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from models.seeding import derive_seed
from tasks.params import SplitParams
from tasks.records import ClipRecord, Split

THUMBNAIL = (4, 16, 16)
"""Frames, height, width of a clip's thumbnail."""


def thumbnail(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A unit vector per clip whose dot product is the correlation of two clips: (T, H, W, C) -> (1024,).

    Block means, each frame less its own mean and blurred background, so that what is compared is detail. Brightness,
    contrast and re-encoding change it little; another patient's anatomy of the same kind changes it much.
    """
    grey = frames.astype(np.float32).mean(-1)
    time = np.linspace(0, len(grey) - 1, THUMBNAIL[0]).round().astype(int)
    small = np.stack([_blocks(grey[at], THUMBNAIL[1:]) for at in time])
    flat = (small - small.mean((1, 2), keepdims=True)).ravel()
    norm = float(np.linalg.norm(flat))
    return flat / norm if norm > 0 else flat


def _blocks(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Means of a grid of blocks, repeating pixels where the image is smaller than the grid."""
    for axis, parts in enumerate(shape):
        edges = np.linspace(0, image.shape[axis], parts + 1)
        starts = np.minimum(edges[:-1].astype(int), image.shape[axis] - 1)
        ends = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
        sums = np.concatenate([np.zeros_like(image.take([0], axis)), image.cumsum(axis)], axis)
        width = (ends - starts).reshape([-1 if at == axis else 1 for at in range(image.ndim)])
        image = (sums.take(ends, axis) - sums.take(starts, axis)) / width
    return image


def groups_of(patients: Sequence[str], thumbnails: NDArray[np.float32], threshold: float, block: int = 2048) -> list[int]:
    """Group number of every clip: patients joined, directly or in a chain, by a pair of clips at or above the threshold.

    One matrix product per pair of blocks; memory grows with the blocks, not with the square of the clips.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    left, right = [], []
    for first in range(0, len(thumbnails), block):
        for second in range(first, len(thumbnails), block):
            rows, columns = np.nonzero(thumbnails[first : first + block] @ thumbnails[second : second + block].T >= threshold)
            left.append(index[rows + first])
            right.append(index[columns + second])
    links = coo_matrix((np.ones(sum(map(len, left)), bool), (np.concatenate(left), np.concatenate(right))), shape=(len(names),) * 2)
    _, group = connected_components(links, directed=False)
    return [int(number) for number in group[index]]


def split_groups(groups: Sequence[int], patients: Sequence[str], shares: SplitParams, seed: int) -> dict[int, Split]:
    """Which split each group is in: shuffled by the seed, then dealt so that shares of patients come as near as groups allow.

    Raises:
        ValueError: if there are fewer groups than splits asked for.
    """
    size: dict[int, int] = {}
    for group, _ in sorted(set(zip(groups, patients, strict=True))):
        size[group] = size.get(group, 0) + 1
    wanted: dict[Split, float] = {"train": shares.train, "val": shares.val, "test": shares.test}
    asked = [name for name, share in wanted.items() if share > 0]
    if len(size) < len(asked):
        raise ValueError(f"dataset.split: {len(size)} patient groups cannot fill {len(asked)} splits ({', '.join(asked)}); "
                         "add patients, raise near_duplicate, or set a share to 0")
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(sorted(size)).tolist()
    total = sum(size.values())
    got = dict.fromkeys(asked, 0)
    dealt: dict[int, Split] = {}
    for turn, group in enumerate(order):
        empty = [name for name in asked if got[name] == 0]
        left = len(order) - turn
        pool = empty if len(empty) == left else asked  # the last groups go where nothing is yet
        chosen = max(pool, key=lambda name: wanted[name] * total - got[name])
        dealt[int(group)] = chosen
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
        raise ValueError(f"dataset.annotated_patients is {count}, but only {len(pool)} training patients have masks; lower it")
    return set(np.random.default_rng(derive_seed(seed, "annotated")).permutation(pool)[:count].tolist())


def check_no_leak(records: Sequence[ClipRecord]) -> None:
    """Raises ValueError if a patient, a near-duplicate group or a source file is in two splits."""
    for what in ("patient", "group", "source"):
        seen: dict[object, str] = {}
        for record in records:
            key = getattr(record, what)
            if seen.setdefault(key, record.split) != record.split:
                raise ValueError(f"leak: {what} {key} is in both {seen[key]} and {record.split}; split by patient again (delete data/prepared)")
