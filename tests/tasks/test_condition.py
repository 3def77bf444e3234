"""Condition banks: signed distances, deformations, classes in turn, and who may be in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.spatial.distance import cdist

from models.clip import UNKNOWN
from tasks.condition import STORE, make_conditions
from tasks.conditions.clips import in_turn
from tasks.conditions.masks import alike, signed_distance, vary
from tasks.records import ClipRecord, ConditionRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_table, write_table


def disc(radius: float, size: int = 32, centre: tuple[float, float] = (16, 16)) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_signed_distance_against_all_pairs() -> None:
    inside = np.stack([disc(6), disc(3, centre=(5, 20))])
    got = signed_distance(inside)
    for plane, one in zip(got, inside, strict=True):
        here, there = np.argwhere(one), np.argwhere(~one)
        assert np.allclose(plane[one], cdist(here, there).min(1) - 0.5)
        assert np.allclose(plane[~one], -(cdist(there, here).min(1) - 0.5))


def test_an_empty_frame_is_far_outside() -> None:
    assert (signed_distance(np.zeros((1, 4, 3), bool)) == -5).all()


def test_no_deformation_of_one_clip_is_that_clip() -> None:
    wire = np.zeros((2, 24, 24), np.uint8)
    wire[0, 4:20, 10:12] = 1
    wire[1, 4:20, 14:16] = 2
    assert (vary(wire[None], np.random.default_rng(0), deform=0.0) == wire).all()


def test_halfway_between_two_discs_lies_between_them() -> None:
    pair = np.stack([disc(4), disc(10)])[:, None].astype(np.uint8)
    sizes = [int(vary(pair, np.random.default_rng(seed), 0.0).sum()) for seed in range(20)]
    assert all(pair[0].sum() <= size <= pair[1].sum() for size in sizes)
    assert len(set(sizes)) > 5


def test_deformation_moves_by_about_its_standard_deviation_and_keeps_motion() -> None:
    """One field for all frames: two equal frames stay equal."""
    still = np.repeat(disc(8)[None], 3, 0).astype(np.uint8)
    moved = vary(still[None], np.random.default_rng(3), deform=2.0)
    assert (moved == moved[:1]).all()
    assert not (moved[0] == still[0]).all()
    assert 0.5 < moved[0].sum() / still[0].sum() < 2
    edge = cdist(np.argwhere(moved[0] != still[0]), np.argwhere(disc(8))).min(1)
    assert edge.max() < 8  # four standard deviations


def test_a_thin_wire_survives_a_deformation() -> None:
    wire = np.zeros((1, 1, 48, 48), np.uint8)
    wire[0, 0, 5:43, 20:22] = 1
    for seed in range(10):
        moved = vary(wire, np.random.default_rng(seed), deform=2.0)
        assert label(moved[0], np.ones((3, 3)))[1] == 1  # in one piece
        assert 0.5 < moved.sum() / wire.sum() < 1.5


@pytest.mark.parametrize("labels", [1, 3])
def test_labels_stay_labels(labels: int) -> None:
    rng = np.random.default_rng(1)
    masks = np.zeros((2, 2, 20, 20), np.uint8)
    for one in range(1, labels + 1):
        masks[:, :, 5 * one : 5 * one + 4, 3:15] = one
    assert set(np.unique(vary(masks, rng, 1.0))) <= set(range(labels + 1))


def test_partners_are_those_whose_masks_overlap(tmp_path: Path) -> None:
    """Two kinds of clips, left and right: nobody is blended with the other kind."""
    masks = np.zeros((8, 2, 16, 16), np.uint8)
    masks[:4, :, 2:10, 1:6] = 1
    masks[4:, :, 6:14, 10:15] = 1
    store = ClipStore.create(tmp_path / "masks.zarr", {"masks": ArraySpec((2, 16, 16), "uint8")}, 8, "f")
    store.write_shard(0, [f"{row:032x}" for row in range(8)], {"masks": masks})
    store.finish(8)
    near = alike(store, list(range(8)))
    assert [len(one) for one in near] == [2] * 8
    assert all((other < 4) == (row < 4) and other != row for row, one in enumerate(near) for other in one)
    assert alike(store, [3]) == [[]]


def prepared(folder: Path) -> Path:
    """Ten clips of ten patients; the last four are for testing, one training clip has no class."""
    labels = ["common"] * 4 + ["rare", None] + ["common", "rare"] * 2
    frames = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8, 1), dtype=np.uint8)
    masks = np.ones((10, 3, 8, 8), np.uint8)
    store = ClipStore.create(folder / "clips.zarr", {"frames": ArraySpec((3, 8, 8, 1), "uint8"),
                                                    "masks": ArraySpec((3, 8, 8), "uint8")}, 16, "f")
    ids = [f"{row:032x}" for row in range(10)]
    store.write_shard(0, ids, {"frames": frames, "masks": masks})
    store.finish(10)
    rows = [ClipRecord(ids[row], f"p{row}", "0", 0, 1, label, f"text {row}", True, row, "train" if row < 6 else "test")
            for row, label in enumerate(labels)]
    write_table(folder / "manifest.parquet", rows, ClipRecord)
    return folder


def test_a_bank_of_clips_takes_training_clips_only_and_classes_in_turn(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared")
    assert make_conditions({"kind": "clips", "count": 4}, 0, data, tmp_path / "bank") == 4
    bank = read_table(tmp_path / "bank" / "conditions.parquet", ConditionRecord)
    assert [one.label for one in bank] == ["common", "rare", "common", "common"]
    assert all(int(one.clips[0], 16) < 6 for one in bank)
    store, clips = ClipStore.open(tmp_path / "bank" / STORE), ClipStore.open(data / "clips.zarr")
    for row, one in enumerate(bank):
        origin = int(one.clips[0], 16)
        assert one.patients == [f"p{origin}"] and one.text == f"text {origin}"
        assert (store.load([row])["frames"] == clips.load([origin])["frames"]).all()
    assert (store.load([0])["masks"] == UNKNOWN).all()  # nobody annotated what will be sampled
    assert make_conditions({"kind": "clips", "count": 99, "labelled_only": False}, 0, data, tmp_path / "all") == 6
    assert len({one.condition_id for one in bank}) == 4


def test_a_bank_without_labels_says_what_to_do(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared")
    rows = read_table(data / "manifest.parquet", ClipRecord)
    write_table(data / "manifest.parquet", [replace(row, label=None) for row in rows], ClipRecord)
    with pytest.raises(ValueError, match="no training clip has a label"):
        make_conditions({"kind": "clips", "count": 4}, 0, data, tmp_path / "bank")


def test_in_turn_takes_every_row_once() -> None:
    classes = {row: "abc"[row % 3 if row < 9 else 0] for row in range(20)}
    order = in_turn(classes, seed=1)
    assert sorted(order) == list(range(20))
    assert [classes[row] for row in order[:9]] == ["a", "b", "c"] * 3
    assert order != in_turn(classes, seed=2)
