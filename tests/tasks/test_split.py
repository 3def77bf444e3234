"""Splits: nobody in two, copies found, honest patients left alone, shares met."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.params import SplitParams
from tasks.readers.phantom import Params, simulate
from tasks.records import ClipRecord
from tasks.split import annotated_patients, check_no_leak, groups_of, split_groups, thumbnails

SHARES = SplitParams(train=0.6, val=0.1, test=0.3)
THRESHOLD = 0.95


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """One clip of each of 16 simulated patients, (16, 6, 48, 48, 1)."""
    params = Params.model_validate({"frames": 6})
    return np.stack([simulate(params, patient, 0).frames for patient in range(16)])


def jpeg(frames: np.ndarray) -> np.ndarray:
    made = []
    for frame in frames[..., 0]:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=40)
        made.append(np.asarray(Image.open(buffer)))
    return np.stack(made)[..., None]


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identical": lambda frames: frames,
    "JPEG quality 40": jpeg,
    "darker, less contrast": lambda frames: (0.6 * frames + 20).astype(np.uint8),
    "gamma": lambda frames: (255 * (frames / 255.0) ** 0.7).astype(np.uint8),
    "one pixel to the right": lambda frames: np.pad(frames, ((0, 0), (0, 0), (1, 0), (0, 0)), "edge")[:, :, :-1],
    "one pixel up": lambda frames: np.pad(frames, ((0, 0), (0, 1), (0, 0), (0, 0)), "edge")[:, 1:],
    "one frame later": lambda frames: np.concatenate([frames[1:], frames[-1:]]),
    "noise": lambda frames: (frames + np.random.default_rng(0).normal(0, 6, frames.shape)).clip(0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_under_another_patient_joins_the_two(name: str, clips: np.ndarray) -> None:
    views = np.stack([thumbnails(frames) for frames in [*clips, COPIES[name](clips[3])]])
    groups = groups_of([*map(str, range(16)), "stolen"], views, THRESHOLD)
    assert groups[3] == groups[16]
    assert len(set(groups)) == 16  # everybody else is alone
    assert groups == groups_of([*map(str, range(16)), "stolen"], views, THRESHOLD, block=5)


def test_correlation_is_what_numpy_says_of_detail() -> None:
    """A pattern finer than a block's surroundings against itself, its negative, and another one."""
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.integers(60, 200, (18, 18)), np.ones((4, 4)))[None, :, :, None].repeat(4, 0).astype(np.uint8)
    base = thumbnails(pattern).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(base, axis=1), 1, atol=1e-3)
    assert base[0] @ thumbnails(255 - pattern)[0].astype(np.float32) == pytest.approx(-1, abs=2e-3)
    other = np.kron(rng.integers(60, 200, (18, 18)), np.ones((4, 4)))[None, :, :, None].repeat(4, 0).astype(np.uint8)
    assert abs(base[0] @ thumbnails(other)[0].astype(np.float32)) < 0.3


def test_a_smooth_or_constant_clip_is_like_nothing() -> None:
    flat = np.full((4, 16, 16, 1), 90, np.uint8)
    assert not thumbnails(flat).any()
    assert groups_of(["a", "b"], np.stack([thumbnails(flat)] * 2), THRESHOLD) == [0, 1]


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (2, 5, 5, 3), (1, 1, 1, 1)])
def test_stills_and_tiny_frames_have_thumbnails(shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    assert thumbnails(frames).shape == (7, 1024)


def test_chains_of_copies_are_one_group() -> None:
    """a like b and b like c, a unlike c: one group; d alone; both clips of a patient are together."""
    angle = np.deg2rad([0, 15, 30, 120, 200])
    views = np.zeros((5, 7, 2), np.float16)
    views[:, 0] = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert groups_of(["a", "b", "c", "d", "a"], views, THRESHOLD) == [0, 0, 0, 1, 0]


@given(st.lists(st.integers(1, 4), min_size=10, max_size=60), st.integers(0, 2**32))
def test_groups_stay_whole_no_split_is_empty_and_shares_are_met(sizes: list[int], seed: int) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    patients = [f"p{number}" for number in range(len(groups))]
    dealt = split_groups(groups, patients, [None] * len(groups), SHARES, seed)
    assert set(dealt) == set(groups)
    assert dealt == split_groups(groups, patients, [None] * len(groups), SHARES, seed)
    counts = {name: sum(dealt[group] == name for group in groups) for name in ("train", "val", "test")}
    assert min(counts.values()) > 0
    for name, share in (("train", 0.6), ("val", 0.1), ("test", 0.3)):
        assert abs(counts[name] - share * len(patients)) <= 2 * max(sizes)


def test_another_seed_deals_otherwise() -> None:
    groups, patients = list(range(40)), [str(number) for number in range(40)]
    dealt = [split_groups(groups, patients, [None] * len(groups), SHARES, seed) for seed in range(5)]
    assert len({tuple(one[group] for group in groups) for one in dealt}) == 5


def test_an_impossible_split_says_so() -> None:
    with pytest.raises(ValueError, match=r"2 patient groups cannot fill 3 splits \(train, val, test\)"):
        split_groups([0, 0, 1], ["a", "b", "c"], [None] * 3, SHARES, 0)
    half = SplitParams(train=0.5, val=0, test=0.5)
    assert set(split_groups([0, 1], ["a", "b"], [None] * 2, half, 0).values()) == {"train", "test"}


def test_every_split_has_every_class_that_is_tied_to_patients() -> None:
    groups = [*range(20)] * 2
    labels = ["rare" if group < 4 else "common" for group in groups]
    for seed in range(20):
        dealt = split_groups(groups, list(map(str, groups)), labels, SHARES, seed)
        rare = [dealt[group] for group in range(4)]
        assert set(rare) == {"train", "val", "test"} and sum(split == "test" for split in dealt.values()) in (5, 6)
    few = ["rare" if group < 2 else str(group) if group < 4 else "common" for group in groups]
    assert set(split_groups(groups, list(map(str, groups)), few, SHARES, 0)) == set(groups)  # those are dealt together


def test_classes_mixed_within_patients_are_dealt_as_before() -> None:
    groups = [*range(12)] * 2
    labels = ["a"] * 12 + ["b"] * 12
    names = list(map(str, groups))
    assert split_groups(groups, names, labels, SHARES, 3) == split_groups(groups, names, [None] * 24, SHARES, 3)


def test_annotated_patients_are_drawn_from_those_with_masks() -> None:
    pool = ["a", "b", "b", "c", "d"]
    assert annotated_patients(pool, None, 0) == {"a", "b", "c", "d"}
    drawn = {frozenset(annotated_patients(pool, 2, seed)) for seed in range(20)}
    assert all(len(some) == 2 and some <= set(pool) for some in drawn)
    assert len(drawn) > 2
    with pytest.raises(ValueError, match="annotated_patients is 5, but only 4 training patients have masks"):
        annotated_patients(pool, 5, 0)


@pytest.mark.parametrize("shared", ["patient", "group", "source"])
def test_a_leak_is_refused(shared: str) -> None:
    first = ClipRecord("1", "p", "s", 0, 1, None, "", True, 0, "train")
    second = ClipRecord("2", "q", "t", 0, 1, None, "", True, 1, "test")
    check_no_leak([first, second])
    with pytest.raises(ValueError, match=f"leak: {shared} .* both train and test"):
        check_no_leak([first, replace(second, **{shared: getattr(first, shared)})])
