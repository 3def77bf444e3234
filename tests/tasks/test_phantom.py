"""The simulator: masks are the wire's geometry, the noise is Poisson's, patients are their own, the seed decides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from tasks.manoeuvres import ACTIONS, MANOEUVRES, SKEWED, sequence
from tasks.params import DatasetParams
from tasks.prepare import prepare
from tasks.readers.phantom import Params, _distance, simulate, sources
from tasks.records import ClipRecord
from tasks.split import thumbnails
from tasks.tables import read_table

SMALL = Params.model_validate({"size": (48, 48), "frames": 6})


def with_settings(**changed: object) -> Params:
    return Params.model_validate({**SMALL.model_dump(), **changed})


def brute_force(line: np.ndarray, y: np.ndarray, x: np.ndarray, density: int = 4000) -> np.ndarray:
    """Distance to the nearest of many points along the polyline."""
    share = np.linspace(0, 1, density)[:, None]
    points = np.concatenate([a + share * (b - a) for a, b in pairwise(line)])
    return np.array([[np.hypot(points[:, 0] - v, points[:, 1] - u).min() for u, v in zip(row_x, row_y, strict=True)]
                     for row_y, row_x in zip(y, x, strict=True)])


def test_distance_is_that_of_a_brute_force_search() -> None:
    lines = np.random.default_rng(0).random((2, 5, 2))
    lines[1, 2] = lines[1, 1]  # a segment without length
    y, x = np.mgrid[:9, :11] / 10
    for few in (2**24, 1):  # all frames together, and one by one
        distances = _distance(lines, y, x, few)
        for line, distance in zip(lines, distances, strict=True):
            np.testing.assert_allclose(distance, brute_force(line, y, x), atol=3e-4)


@pytest.mark.parametrize("size", [(48, 48), (48, 64), (96, 96)])
def test_the_wire_is_two_to_three_pixels_wide_and_in_one_piece(size: tuple[int, int]) -> None:
    for clip in range(4):
        masks = simulate(with_settings(size=size), 1, clip).masks
        assert masks is not None
        assert masks.shape == (6, *size)
        for mask in masks:
            assert label(mask, np.ones((3, 3)))[1] == 1
            inner = mask.astype(bool) & ~binary_dilation(~mask.astype(bool), np.ones((3, 3)))  # no background around
            assert inner.sum() < 0.15 * mask.sum()  # none in a straight wire of 3 pixels; a few where it bends
            assert 30 < mask.sum() < 0.1 * mask.size


def test_more_contrast_darkens_the_wire_and_nothing_else() -> None:
    def depth(contrast: float) -> float:
        made = simulate(with_settings(contrast=(contrast, contrast), photons=(1e6, 1e6)), 2, 0)
        assert made.masks is not None
        wire = made.masks.astype(bool)
        beside = binary_dilation(wire, np.ones((1, 7, 7))) & ~binary_dilation(wire, np.ones((1, 3, 3)))
        log = np.log((made.frames[..., 0] / 255.0) ** 2)
        return float(log[beside].mean() - log[wire].mean())

    low, high = depth(0.25), depth(0.9)
    assert 0.05 < low < 0.35
    assert 0.3 < high < 0.9
    assert high > 1.8 * low


def test_the_noise_has_poisson_variance() -> None:
    """Frames are 255 sqrt(N / photons): by the delta method their variance is 255^2 / (4 photons), where it is not clipped."""
    photons = 400.0
    few, many = (with_settings(photons=(count, count), contrast=(0.9, 0.9)) for count in (photons, 1e7))
    made, clean = (np.stack([simulate(params, patient, 0).frames[..., 0] for patient in range(24)]).astype(float)
                   for params in (few, many))
    expected = 255**2 / (4 * photons) + 2 / 12  # rounding of both
    for low, high in ((90, 140), (140, 170), (170, 200)):
        residual = (made - clean)[(clean > low) & (clean < high)]
        assert len(residual) > 2000
        assert abs(residual.mean()) < 0.6
        assert residual.var() == pytest.approx(expected, rel=0.06)


def test_the_seed_decides_everything() -> None:
    first, again, other = simulate(SMALL, 3, 1), simulate(SMALL, 3, 1), simulate(with_settings(seed=1), 3, 1)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert (first.frames != other.frames).mean() > 0.5


def test_patients_differ_more_than_clips_of_one() -> None:
    frames = [[simulate(SMALL, patient, clip).frames for clip in range(2)] for patient in range(12)]
    views = np.array([[thumbnails(clip)[0] for clip in clips] for clips in frames]).astype(np.float32)
    within = (views[:, 0] * views[:, 1]).sum(-1)
    across = (views[:, 0] @ views[:, 1].T)[~np.eye(12, dtype=bool)]
    assert np.median(within) > across.max()


@pytest.mark.parametrize("manoeuvre", ["advance", "retract"])
def test_the_label_names_what_the_wire_does(manoeuvre: str) -> None:
    listed = sources(Path(), with_settings(patients=12, frames=8))
    assert {source.label for source in listed} == set(MANOEUVRES)
    grown = []
    for source in listed:
        if source.label == manoeuvre and (masks := source.read().masks) is not None:
            grown.append(float(masks[-1].sum()) / float(masks[0].sum()))
    assert len(grown) > 2
    assert all((ratio > 1.1) == (manoeuvre == "advance") for ratio in grown)


def test_sources_are_told_apart_by_their_parameters() -> None:
    digests = [source.digest() for source in sources(Path(), SMALL)]
    assert len(set(digests)) == len(digests) == 48
    assert digests[0] != sources(Path(), with_settings(photons=(100.0, 600.0)))[0].digest()
    assert digests[0] == sources(Path("elsewhere"), SMALL)[0].digest()


def test_a_sequence_has_its_frequencies_and_the_wire_stays_in_range() -> None:
    rng, seen = np.random.default_rng(0), []
    for _ in range(300):
        script = sequence(rng, 60, 6, SKEWED)
        assert script.labels is not None and len(script.labels) == 60
        assert script.travel.min() >= -1e-9 and script.travel.max() <= 1 + 1e-9
        assert np.abs(np.diff(script.travel)).max() < 0.1  # it does not jump
        for name, moves in (("advance", 1), ("retract", -1)):
            steps = np.diff(script.travel)[[one == name for one in script.labels[1:]]]
            assert (np.sign(steps) == moves).all()
        assert ((np.abs(script.turn) > 1e-9) <= (np.array(script.labels) == "rotate")).all()  # type: ignore[arg-type]
        assert ((script.dye > 1e-9) <= (np.array(script.labels) == "inject")).all()
        seen += script.labels[::6]
    shares = {name: seen.count(name) / len(seen) for name in ACTIONS}
    assert shares["idle"] > shares["advance"] > shares["rotate"] > shares["inject"] > 0.02


def test_contrast_agent_darkens_the_vessel_and_goes_again() -> None:
    """Beside the same scene without it."""
    scenes = {}
    for action in ("inject", "idle"):
        volume = simulate(with_settings(frames=24, manoeuvre_frames=12, photons=(1e7, 1e7), frequencies={action: 1.0}), 0, 0)
        assert volume.labels == (action,) * 24
        scenes[action] = volume.frames.astype(float)[..., 0]
    darker = (scenes["idle"] - scenes["inject"]).reshape(24, -1).max(1)
    assert min(darker[5], darker[17]) > 20 and max(darker[11], darker[23]) < 3


@pytest.mark.parametrize("size", [(48, 48), (40, 60)])
def test_magnification_enlarges_the_middle_of_the_view(size: tuple[int, int]) -> None:
    quiet = {"photons": (1e7, 1e7), "contrast": (1e-6, 1e-6), "size": size}
    plain = simulate(with_settings(**quiet), 0, 0).frames.astype(float)[0, ..., 0]
    near = simulate(with_settings(**quiet, magnification=2.0), 0, 0).frames.astype(float)[0, ..., 0]
    height, width = size
    middle = plain[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    halved = near.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    whole = plain.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    of_middle, of_whole = (np.corrcoef(one.ravel(), halved.ravel())[0, 1] for one in (middle, whole))
    assert of_middle > 0.93 > of_whole + 0.03


def test_reach_is_how_far_the_tip_goes() -> None:
    def went(reach: float) -> float:
        found = []
        for patient in range(8):
            masks = simulate(with_settings(reach=reach, frames=16, manoeuvre_frames=16, frequencies={"rotate": 1e-9,
                                           "advance": 1.0}), patient, 0).masks
            assert masks is not None
            found.append(masks[-1].sum() / masks[0].sum())
        return float(np.mean(found))

    assert went(0.7) > went(0.25) + 0.2 > 1.2


def test_clips_of_a_sequence_have_the_action_at_their_middle_and_its_words(tmp_path: Path) -> None:
    dataset = DatasetParams.model_validate({
        "name": "actions", "reader": "phantom", "location": tmp_path, "clip_frames": 4, "hop": 2, "frame_size": (32, 32),
        "options": {"patients": 6, "clips_per_patient": 1, "frames": 24, "size": [32, 32], "manoeuvre_frames": 6},
        "classes": ["guidewire"], "split": {"train": 0.5, "val": 0.0, "test": 0.5}})
    prepare(dataset, 0, tmp_path / "out")
    records = read_table(tmp_path / "out" / "manifest.parquet", ClipRecord)
    assert len(records) == 6 * 11
    options = Params.model_validate(dataset.options)
    for record in records:
        labels = simulate(options, int(record.patient.removeprefix("simulated")), 0).labels
        assert labels is not None and record.label == labels[record.first_frame + 2]
        assert record.text.endswith(ACTIONS[record.label])


def test_a_wire_that_only_advances_is_refused() -> None:
    with pytest.raises(ValueError, match="the wire cannot always advance"):
        with_settings(manoeuvre_frames=4, frequencies={"advance": 1.0})
    with pytest.raises(ValueError, match="dance is no action"):
        with_settings(manoeuvre_frames=4, frequencies={"dance": 1.0})
