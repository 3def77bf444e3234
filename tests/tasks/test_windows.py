"""Windows, scaling and resizing: closed forms, hand-made masks, thin wires that must survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from models.clip import UNKNOWN
from tasks.params import DatasetParams
from tasks.readers import QuarantinedError, Volume
from tasks.windows import check_volume, cut, resize, scale, window_starts


def dataset(**changed: object) -> DatasetParams:
    base = {"name": "made", "reader": "images", "location": Path(), "classes": ["wire"], "clip_frames": 4, "frame_size": (8, 8),
            "fit": "stretch", "window": (0, 100), "split": {"train": 0.5, "val": 0.2, "test": 0.3}}
    return DatasetParams.model_validate({**base, **changed})


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 5), st.none() | st.integers(1, 9))
def test_windows_are_as_many_as_fit_apart_and_evenly_spread(frames: int, length: int, stride: int, most: int | None) -> None:
    span = (length - 1) * stride + 1
    if frames < span:
        return
    starts = window_starts(frames, length, stride, most)
    assert len(starts) == min(frames // span, most or frames)
    edges = np.array([0, *starts, frames])
    gaps = np.diff(edges) - np.array([0, *[span] * len(starts)])
    assert gaps.min() >= 0
    assert gaps.max() - gaps.min() <= 1  # what is left over is shared out to the frame


def test_the_papers_own_numbers() -> None:
    """8 frames of 15, every second one: two windows in 40 frames, with 10 frames left for three gaps."""
    assert window_starts(40, 8, 2) == [3, 22]
    assert window_starts(16, 16, 1) == [0]


def test_windows_a_hop_apart_may_overlap() -> None:
    assert window_starts(20, 8, 1, hop=4) == [0, 4, 8, 12]
    assert window_starts(20, 8, 1, 2, 4) == [0, 8]
    assert window_starts(8, 8, 1, hop=4) == [0] and window_starts(5, 8, 1, hop=4) == [0]


def test_a_short_volume_is_padded_with_black_from_half_on() -> None:
    frames = np.random.default_rng(0).integers(1, 255, (5, 8, 8, 1)).astype(np.uint8)
    assert window_starts(5, 10, 1) == [0]
    with pytest.raises(QuarantinedError, match="has 4 frames, 4 of a clip's 10"):
        window_starts(4, 10, 1)
    masks = np.ones((5, 8, 8), np.uint8)
    pictures, labels = cut(Volume(frames, masks), 0, dataset(clip_frames=10))
    assert pictures.shape == (10, 8, 8, 1)
    assert not pictures[5:].any()
    np.testing.assert_array_equal(labels[:, 0, 0], [1] * 5 + [0] * 5)
    _, unknown = cut(Volume(frames), 0, dataset(clip_frames=10))
    assert (unknown == UNKNOWN).all()


def test_a_clip_takes_every_stride_th_frame_with_its_own_mask() -> None:
    frames = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 1)).copy()
    masks = (np.arange(20) % 2).astype(np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    pictures, labels = cut(Volume(frames, masks), 3, dataset(stride=3))
    np.testing.assert_array_equal(pictures[:, 0, 0, 0], np.round(np.array([0, 3, 6, 9]) / 9 * 255))
    np.testing.assert_array_equal(labels[:, 0, 0], [1, 0, 1, 0])


@given(st.floats(0.1, 50), st.floats(-1000, 1000))
def test_scaling_does_not_see_gain_and_offset(gain: float, offset: float) -> None:
    frames = np.random.default_rng(1).normal(size=(3, 6, 6, 1))
    assert np.abs(scale(frames * gain + offset, (5, 95)).astype(int) - scale(frames, (5, 95))).max() <= 1


def test_percentiles_become_black_and_white() -> None:
    ramp = np.arange(101, dtype=np.uint16).reshape(1, 1, 101, 1) * 300
    scaled = scale(ramp, (10, 90))[0, 0, :, 0]
    np.testing.assert_array_equal(scaled[[0, 10, 50, 90, 100]], [0, 0, 128, 255, 255])
    few = np.zeros((1, 30, 30, 1), np.uint8)
    few[0, 3, 4] = 9  # fewer bright pixels than the percentile cuts off
    np.testing.assert_array_equal(np.unique(scale(few, (0.5, 99.5))), [0, 255])


def test_pad_keeps_the_aspect_and_stretch_fills_the_frame() -> None:
    frames, masks = np.full((2, 20, 40, 1), 200, np.uint8), np.ones((2, 20, 40), np.uint8)
    padded, labels = resize(frames, masks, (16, 16), "pad")
    assert padded.shape == (2, 16, 16, 1)
    np.testing.assert_array_equal(padded[0, :, 5, 0], [0] * 4 + [200] * 8 + [0] * 4)
    np.testing.assert_array_equal(labels[0, :, 5], [0] * 4 + [1] * 8 + [0] * 4)
    stretched, labels = resize(frames, masks, (16, 16), "stretch")
    assert (stretched == 200).all()
    assert (labels == 1).all()
    masks[1] = UNKNOWN
    assert (resize(frames, masks, (16, 16), "pad")[1][1] == UNKNOWN).all()


@pytest.mark.parametrize("side", [24, 32, 48])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2])
def test_a_thin_wire_stays_in_one_piece_and_thin(side: int, angle: float) -> None:
    y, x = np.mgrid[:256, :256] - 127.5
    wire = (np.abs(np.cos(angle) * x + np.sin(angle) * y) <= 1.1) & (np.hypot(x, y) < 100)
    masks = np.broadcast_to(wire, (2, 256, 256)).astype(np.uint8)
    _, small = resize(np.zeros((2, 256, 256, 1), np.uint8), masks, (side, side), "stretch")
    assert label(small[0], np.ones((3, 3)))[1] == 1
    length = 200 * side / 256
    assert 0.9 * length < small[0].sum() < 2.6 * length
    nearest = masks[0, :: 256 // side, :: 256 // side]
    assert angle == 0.0 or label(nearest, np.ones((3, 3)))[1] > 1  # what decimation makes of it


def test_an_organ_keeps_its_area_and_the_largest_share_wins() -> None:
    y, x = np.mgrid[:128, :128] - 63.5
    masks = np.where(np.hypot(y, x) < 40, np.where(y < 0, 1, 2), 0).astype(np.uint8)[None]
    _, small = resize(np.zeros((1, 128, 128, 1), np.uint8), masks, (32, 32), "stretch")
    for name in (1, 2):
        assert (small == name).sum() * 16 == pytest.approx((masks == name).sum(), rel=0.06)
    assert set(np.unique(small[0, :16])) == {0, 1}


@pytest.mark.parametrize(("volume", "reason"), [
    (Volume(np.zeros((0, 4, 4, 1), np.uint8)), "no pixels"),
    (Volume(np.full((4, 4, 4, 1), np.nan, np.float32)), "not finite"),
    (Volume(np.zeros((4, 4, 4, 1)), np.zeros((4, 4, 3), np.uint8)), r"masks are \(4, 4, 3\)"),
    (Volume(np.zeros((4, 4, 4, 1)), np.full((4, 4, 4), 2, np.uint8)), r"labels \[2\], but the data set names 1 classes"),
])
def test_what_cannot_be_used_is_refused(volume: Volume, reason: str) -> None:
    with pytest.raises(QuarantinedError, match=reason):
        check_volume(volume, 1)


def test_a_constant_window_is_refused() -> None:
    frames = np.zeros((8, 4, 4, 1), np.uint8)
    frames[4:, 0] = 9
    with pytest.raises(QuarantinedError, match="constant from frame 0"):
        cut(Volume(frames), 0, dataset())
    cut(Volume(frames), 4, dataset())
