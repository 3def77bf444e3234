"""Overlaps by hand; distances against hand-made masks, brute force over all pixel pairs, and MONAI where definitions meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance
from scipy.spatial.distance import cdist
from skimage.morphology import skeletonize

from tasks.metrics.segmentation import METRICS, Mask, clip_metrics, frame_distances, overlap, skeletons

HEIGHT, WIDTH = 9, 12
masks = arrays(np.bool_, (3, HEIGHT, WIDTH), elements=st.booleans())
sparse = arrays(np.bool_, (3, HEIGHT, WIDTH), elements=st.integers(0, 20).map(lambda number: number == 0))


def square(top: int, left: int, side: int = 3, frames: int = 1, size: int = 20) -> Mask:
    mask = np.zeros((frames, size, size), bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def test_overlap_of_shifted_squares() -> None:
    found = overlap(square(5, 6), square(5, 5))
    assert found == {"dice": 2 * 6 / 18, "sensitivity": 6 / 9, "precision": 6 / 9}
    assert overlap(square(5, 5, side=2), square(5, 5, side=4)) == {"dice": 8 / 20, "sensitivity": 4 / 16, "precision": 1.0}


def test_overlap_of_empty_sides() -> None:
    nothing, something = np.zeros((1, 20, 20), bool), square(5, 5)
    both, missed, invented = overlap(nothing, nothing), overlap(nothing, something), overlap(something, nothing)
    assert both["dice"] == 1 and math.isnan(both["sensitivity"]) and math.isnan(both["precision"])
    assert missed == {"dice": 0.0, "sensitivity": 0.0, "precision": 0.0}
    assert invented["dice"] == 0 and math.isnan(invented["sensitivity"]) and invented["precision"] == 0


def test_distances_between_points() -> None:
    """One true pixel, two found ones 5 (3-4-5) and 13 (5-12-13) away."""
    truth, result = np.zeros((1, 20, 20), bool), np.zeros((1, 20, 20), bool)
    truth[0, 2, 2] = True
    result[0, 5, 6] = result[0, 7, 14] = True
    values, one_sided = frame_distances(result, truth)
    assert {name: value.tolist() for name, value in values.items()} == {"hausdorff": [13.0], "g2re": [5.0], "r2ge": [9.0]}
    assert one_sided == 0


def test_shifted_square_and_frames_are_apart() -> None:
    """Shifted by 4 columns: columns are 4, 3, 2 from the other square. The second frame is equal, the third shifted by 1."""
    truth = square(5, 5, frames=3)
    result = np.concatenate([square(5, 9), square(5, 5), square(6, 5)])
    values, _ = frame_distances(result, truth)
    np.testing.assert_allclose(values["hausdorff"], [4, 0, 1])
    np.testing.assert_allclose(values["g2re"], [3, 0, 1 / 3])
    np.testing.assert_allclose(values["r2ge"], [3, 0, 1 / 3])


def test_a_hole_is_seen_from_one_side_only() -> None:
    """Whole pixel sets, not outlines: filling a ring's hole is a false alarm and no miss."""
    ring = square(5, 5, side=5)
    ring[0, 6:9, 6:9] = False
    values, _ = frame_distances(square(5, 5, side=5), ring)
    assert values["g2re"][0] == 0 and values["hausdorff"][0] == 2
    np.testing.assert_allclose(values["r2ge"][0], (8 * 1 + 2) / 25)


@pytest.mark.parametrize(("policy", "expected"), [("diagonal", math.hypot(19, 19)), ("nan", float("nan"))])
def test_empty_frames_follow_the_policy(policy: str, expected: float) -> None:
    """Frames: both empty, result empty, truth empty, equal."""
    nothing = np.zeros((1, 20, 20), bool)
    result = np.concatenate([nothing, nothing, square(5, 5), square(5, 5)])
    truth = np.concatenate([nothing, square(5, 5), nothing, square(5, 5)])
    values, one_sided = frame_distances(result, truth, empty_distance=policy)  # type: ignore[arg-type]
    for metric in values.values():
        np.testing.assert_array_equal(metric, [0, expected, expected, 0])
    assert one_sided == 2
    labels = clip_metrics(result.astype(np.uint8), truth.astype(np.uint8), ["wire"], empty_distance=policy)  # type: ignore[arg-type]
    assert labels["mean"]["hausdorff"] == (0 if policy == "nan" else pytest.approx(expected / 2))
    assert labels["mean"]["one_sided_frames"] == 2


@settings(max_examples=60, deadline=None)
@given(result=st.one_of(masks, sparse), truth=st.one_of(masks, sparse))
def test_distances_equal_brute_force(result: Mask, truth: Mask) -> None:
    values, _ = frame_distances(result, truth)
    for frame in range(3):
        found, wanted = np.argwhere(result[frame]), np.argwhere(truth[frame])
        if len(found) and len(wanted):
            pairs = cdist(wanted, found)
            to_found, to_wanted = pairs.min(1), pairs.min(0)
            expected = [max(to_found.max(), to_wanted.max()), to_found.mean(), to_wanted.mean()]
        else:
            expected = [0.0 if len(found) == len(wanted) else math.hypot(HEIGHT - 1, WIDTH - 1)] * 3
        np.testing.assert_allclose([values[name][frame] for name in ("hausdorff", "g2re", "r2ge")], expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(stack=st.one_of(masks, sparse))
def test_skeletons_equal_frame_by_frame(stack: Mask) -> None:
    thin = skeletons(stack)
    for frame, mask in zip(thin, stack, strict=True):
        alone = skeletonize(np.pad(mask, 1))[1:-1, 1:-1]
        np.testing.assert_array_equal(frame, alone if alone.any() else mask)
        assert not (frame & ~mask).any()


def test_skeleton_forgives_thickness() -> None:
    """A bar of 3 rows against one of 1 row on the same axis: far apart as masks, near as skeletons."""
    thick, thin = np.zeros((1, 15, 40), bool), np.zeros((1, 15, 40), bool)
    thick[0, 6:9, 4:36] = thin[0, 7, 4:36] = True
    whole, _ = frame_distances(thick, thin, distance_on="mask")
    bone, _ = frame_distances(thick, thin, distance_on="skeleton")
    np.testing.assert_allclose(whole["r2ge"], 2 / 3)
    assert bone["r2ge"][0] < 0.2 and bone["g2re"][0] < 0.2
    assert bone["hausdorff"] == whole["hausdorff"] == 1


def test_hausdorff_agrees_with_monai_on_solid_shapes() -> None:
    """MONAI measures between outlines; for separate solid shapes the farthest pixel lies on one."""
    rng = np.random.default_rng(0)
    boxes = rng.integers([0, 0, 3, 3], [10, 10, 9, 9], size=(40, 2, 4))
    result, truth = np.zeros((2, 40, 40, 40), bool)
    for frame, ((top, left, tall, wide), (top_2, left_2, tall_2, wide_2)) in enumerate(boxes):
        result[frame, top : top + tall, left : left + wide] = True
        truth[frame, 20 + top_2 : 20 + top_2 + tall_2, 20 + left_2 : 20 + left_2 + wide_2] = True
    ours, _ = frame_distances(result, truth)
    found, wanted = (torch.tensor(masks)[:, None].float() for masks in (result, truth))
    theirs = compute_hausdorff_distance(found, wanted, include_background=True)
    np.testing.assert_allclose(ours["hausdorff"], theirs.numpy()[:, 0], rtol=1e-6)


def test_mean_is_over_the_classes_the_clip_shows() -> None:
    truth = np.zeros((2, 20, 20), np.uint8)
    truth[:, 5:8, 5:8] = 1
    result = truth.copy()
    result[:, 15, 15] = 2
    found = clip_metrics(result, truth, ["head", "tail", "absent"])
    assert [found[name]["dice"] for name in ("head", "tail", "absent", "mean")] == [1, 0, 1, 0.5]
    assert found["mean"]["precision"] == 0.5 and found["mean"]["sensitivity"] == 1
    assert found["mean"]["one_sided_frames"] == found["tail"]["one_sided_frames"] == 2
    empty = clip_metrics(truth * 0, truth * 0, ["head", "tail"])["mean"]
    assert empty["dice"] == 1 and empty["hausdorff"] == 0 and math.isnan(empty["sensitivity"])
    assert set(empty) == {*METRICS, "one_sided_frames"}


def test_frames_nobody_annotated_do_not_count() -> None:
    truth, result = square(5, 5, frames=3).astype(np.uint8), square(5, 5, frames=3).astype(np.uint8)
    truth[1], result[1] = 255, 0
    truth[2, 0, 0], result[2] = 255, 0
    assert clip_metrics(result, truth, ["wire"])["mean"]["dice"] == 1
    with pytest.raises(ValueError, match="no frame is annotated"):
        clip_metrics(result[1:], truth[1:], ["wire"])
    with pytest.raises(ValueError, match=r"same \(T, H, W\)"):
        clip_metrics(result[:1], truth, ["wire"])
