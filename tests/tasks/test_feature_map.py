"""Neighbours stay neighbours, a map is small and the same again, and its marks say which clip they are and their fate."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_line

from tasks import feature_map as module
from tasks.distribution import distribution
from tasks.feature_map import feature_map, perplexity, plane
from tasks.gallery import read_set
from tasks.map_marks import HEIGHT, WIDTH, read_map, read_maps
from tasks.params import ControlParams, Params
from tasks.records import MapRecord
from tasks.store import ClipStore
from tasks.tables import read_json, read_table


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    for name in tree.samples:
        mapped(data, name)
    return data, tree


def mapped(data: Path, name: str, params: ControlParams | None = None) -> None:
    folders = (data / "critics", data / "prepared", data / "clips" / name, data / "features", data / "control" / name)
    feature_map(params or ControlParams(), *folders)


def test_groups_of_features_are_groups_of_the_map() -> None:
    """Three clouds far apart: the nearest neighbours on the map are of the same cloud."""
    rng = np.random.default_rng(0)
    cloud = np.repeat([0, 1, 2], 20)
    seen = (rng.normal(size=(60, 5)) + 30 * cloud[:, None]).astype(np.float32)
    places = plane(seen, perplexity(60))
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (cloud[apart.argsort(1)[:, :5]] == cloud[:, None]).all()
    assert (plane(seen, perplexity(60)) == places).all()


@pytest.mark.parametrize("clips", [1, 2, 3, 4, 7])
def test_few_clips_have_a_map_too(clips: int) -> None:
    seen = np.random.default_rng(clips).normal(size=(clips, 4)).astype(np.float32)
    places = plane(seen, perplexity(clips))
    assert places.shape == (clips, 2) and np.isfinite(places).all()
    assert not plane(np.ones((clips, 4), np.float32), perplexity(clips)).any()  # no clip differs from another


def test_perplexity_is_of_the_number_of_clips() -> None:
    assert [perplexity(clips) for clips in (1, 4, 31, 91, 1000)] == [1, 1, 10, 30, 30]


def test_every_clip_has_a_place_and_the_extractor_a_name(line: tuple[Path, Params]) -> None:
    data, _ = line
    rows = read_table(data / "control" / "sfvd" / "map.parquet", MapRecord)
    assert Counter(row.origin for row in rows) == {"training": 6, "held-out": 4, "synthetic": tiny_line.SAMPLED}
    real, made = (ClipStore.open(data / where / "clips.zarr").ids for where in ("prepared", "clips/sfvd"))
    assert [row.clip_id for row in rows] == [*real[:6], *real[8:], *made]
    facts = read_json(data / "control" / "sfvd" / "map.json")
    assert facts == {"extractor": "random3d (random 3-D network of seed 0; grey, 64 px bilinear)", "perplexity": 19 / 3}


def test_a_large_set_is_thinned_and_what_distances_measured_is_not_measured_again(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(line[0], data)
    shutil.rmtree(data / "features")
    clips, out = data / "clips" / "sfvd", data / "control" / "sfvd"
    distribution(ControlParams(), data / "critics", data / "prepared", clips, data / "features", out)
    before = {path.name: path.stat().st_mtime_ns for path in (data / "features").iterdir()}
    monkeypatch.setattr(module, "PLACED", {"training": 2, "held-out": 3, "synthetic": 4})
    mapped(data, "sfvd")
    assert {path.name: path.stat().st_mtime_ns for path in (data / "features").iterdir()} == before
    rows = read_table(out / "map.parquet", MapRecord)
    assert [row.origin for row in rows] == 2 * ["training"] + 3 * ["held-out"] + 4 * ["synthetic"]
    assert [row.clip_id for row in rows[-4:]] == [ClipStore.open(clips / "clips.zarr").ids[at] for at in (0, 3, 6, 9)]


def test_without_an_extractor_an_old_map_goes(line: tuple[Path, Params], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(line[0], data)
    mapped(data, "sfvd", ControlParams(features=[]))
    assert not list((data / "control" / "sfvd").iterdir())
    assert [name for name, *_ in read_maps(line[1], data)] == ["no_consistency"]


def test_marks_say_what_they_are_and_lie_in_the_picture(line: tuple[Path, Params]) -> None:
    data, tree = line
    (first, _, found), (second, change, _) = read_maps(tree, data)
    assert (first, second) == ("sfvd", "no_consistency") and "chronological" in change
    assert {kind: len(marks) for kind, marks in found.marks.items()} == {"training": 6, "held-out": 4, "dropped": 3, "kept": 7}
    for marks in found.marks.values():
        assert all(0 <= mark.x <= WIDTH and 0 <= mark.y <= HEIGHT for mark in marks)
    made = ClipStore.open(data / "clips" / "sfvd" / "clips.zarr").ids
    assert {mark.clip_id: mark.words for mark in found.marks["dropped"]} == {
        made[row]: f"synthetic clip {made[row][:8]}, dropped by {'agreement' if row == tiny_line.WRONG else 'similarity'}"
        for row in (*tiny_line.DUPLICATES, tiny_line.WRONG)}
    assert found.marks["kept"][0].words == f"synthetic clip {made[0][:8]}, kept"
    assert found.marks["held-out"][0].words.endswith(", patient patient08")


def test_a_map_of_clips_that_are_no_more_is_not_shown(line: tuple[Path, Params], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(line[0], data)
    shutil.copy(data / "control" / "no_consistency" / "map.parquet", data / "control" / "sfvd" / "map.parquet")
    shown = read_set("sfvd", data / "clips", data / "decisions")
    assert shown is not None and read_map(data / "control" / "sfvd", shown, data / "prepared") is None
