"""Mask sequences to ask a generator for.

The paper reuses the annotators' own mask sequences (SF-VD, "Limitation"). That limits what can be asked for to what was
annotated, so each condition may also be a smooth deformation of one annotated training clip, or a point between two of them
(their signed distances interpolated). Only training patients' clips are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from models.seeding import derive_seed
from tasks.conditions import Bank
from tasks.records import ClipRecord, ConditionRecord
from tasks.store import ClipStore
from tasks.tables import read_table

Masks = NDArray[np.uint8]


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(gt=0)
    blend: float = Field(0.5, ge=0, le=1, description="chance of interpolating signed distances with a second training clip")
    deform: float = Field(0.0, ge=0, description="standard deviation of the smooth deformation, pixels")


def bank(params: Params, seed: int, prepared: Path) -> Bank:
    """Condition i starts from annotated training clip i modulo their number, so that every one is used before any repeats.

    Raises:
        ValueError: when the training split has no fully annotated clip.
    """
    clips = ClipStore.open(prepared / "clips.zarr")
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    rows = [row for row, record in enumerate(records) if record.split == "train" and record.annotated]
    whole = [row for row in rows if bool(clips.conditions([row]).annotated.all())]
    if not whole:
        raise ValueError(
            "conditions: no training clip has a mask on every frame; raise dataset.annotated_patients or add masks"
        )
    partners = {row: [whole[at] for at in near] for row, near in zip(whole, alike(clips, whole), strict=True)}

    def make(numbers: Sequence[int]) -> tuple[list[ConditionRecord], dict[str, Masks]]:
        made = [_condition(number, partners, records, clips, params, seed) for number in numbers]
        return [record for record, _ in made], {"masks": np.stack([masks for _, masks in made])}

    return Bank(params.count, {"masks": clips.arrays["masks"]}, make)


def _condition(
    number: int,
    partners: dict[int, list[int]],
    records: list[ClipRecord],
    clips: ClipStore,
    params: Params,
    seed: int,
) -> tuple[ConditionRecord, Masks]:
    rng = np.random.default_rng(derive_seed(seed, "condition", number))
    rows = list(partners)
    chosen = [rows[number % len(rows)]]
    if rng.random() < params.blend and partners[chosen[0]]:
        chosen.append(int(rng.choice(partners[chosen[0]])))
    masks = clips.load(chosen)["masks"]
    fresh = number >= len(rows) or len(chosen) > 1  # the first round, unblended, are the annotators' own masks
    masks = vary(masks, rng, params.deform) if fresh else masks[0]
    digest = hashlib.blake2b(f"{number}:{masks.shape}".encode() + masks.tobytes(), digest_size=16).hexdigest()
    patients = sorted({records[row].patient for row in chosen})
    return ConditionRecord(digest, patients, [records[row].clip_id for row in chosen], None, ""), masks


def alike(clips: ClipStore, rows: list[int], grid: int = 8) -> list[list[int]]:
    """For every clip the positions of the quarter of the others whose masks overlap it most: whom it may be blended with.

    Half-way between structures that do not overlap is nothing: distances to both are negative everywhere. Overlap is the cosine
    of the foreground's area in blocks of every frame, one matrix product for all pairs.
    """
    views = []
    for row in rows:
        inside = (clips.load([row])["masks"][0] > 0).astype(np.float32)
        rows_at, columns_at = (range(0, size, max(1, size // grid)) for size in inside.shape[1:])
        views.append(np.add.reduceat(np.add.reduceat(inside, rows_at, 1), columns_at, 2).ravel())
    table = np.stack(views)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    likeness = table @ table.T
    np.fill_diagonal(likeness, -1)
    count = min(len(rows) - 1, max(1, len(rows) // 4))
    return [np.argsort(-line, kind="stable")[:count].tolist() for line in likeness]


def vary(masks: Masks, rng: np.random.Generator, deform: float) -> Masks:
    """One new mask sequence from one or two.

    Args:
        masks: (1 or 2, T, H, W) label maps without unknown pixels.
        rng: draws the interpolation weight and the deformation.
        deform: standard deviation of the displacement in pixels; one field for all frames, so motion stays the clip's own.

    Returns:
        (T, H, W) label map; where distances tie between classes, the lower label.
    """
    classes = int(masks.max())
    if classes == 0:
        return masks[0]
    weight = rng.random() if len(masks) > 1 else 1.0
    depth = np.stack([signed_distance(masks == label) for label in range(1, classes + 1)], 1)  # (1|2, K, T, H, W)
    depth = depth[0] if len(masks) == 1 else weight * depth[0] + (1 - weight) * depth[1]
    height, width = depth.shape[-2:]
    field = np.stack([gaussian_filter(rng.standard_normal((height, width)), max(height, width) / 8) for _ in range(2)])
    field *= deform / np.maximum(field.std(axis=(1, 2), keepdims=True), 1e-12)
    grid = np.mgrid[:height, :width] + field
    flat = depth.reshape(-1, height, width)
    moved = np.empty_like(flat)
    for plane, out in zip(flat, moved, strict=True):
        map_coordinates(plane, grid, out, order=1, mode="nearest")
    moved = moved.reshape(depth.shape)
    best = moved.argmax(0)
    return np.where(moved.max(0) > 0, best + 1, 0).astype(np.uint8)


def signed_distance(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance in pixels to the boundary, frame by frame: positive inside, negative outside, minus the diagonal if empty.

    Args:
        inside: (..., H, W).
    """
    flat = inside.reshape(-1, *inside.shape[-2:])
    diagonal = float(np.hypot(*inside.shape[-2:]))
    depth = np.full(flat.shape, -diagonal)
    for plane, one in zip(depth, flat, strict=True):
        if one.any():
            # half a pixel each way puts the zero between the outermost pixel and its neighbour: thin wires keep their width
            plane[:] = np.where(one, distance_transform_edt(one) - 0.5, 0.5 - distance_transform_edt(~one))
    return depth.reshape(inside.shape)
