"""What changed from one release to the next, and why; asked of tags, with nothing checked out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_factory
import tiny_line
from typer.testing import CliRunner

from flows.__main__ import app
from tasks.audit import audit
from tasks.records import ProvenanceRecord
from tasks.store import ClipStore
from tasks.tables import read_json, read_table, write_json, write_table
from tasks.version_diff import ClipChange, Metric, diff


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny factory's versions 1 and 2; 4, another set of the same generator; 5, that set by a generator trained anew, other
    pixels in one clip, one arm of the benchmark far better, one new, and other test clips."""
    folder = tmp_path_factory.mktemp("diff") / "factory"
    tiny_factory.build(folder, str(folder.parent / "store"))
    data, other = folder / "data", "no_consistency"
    audit(data / "prepared", data / "conditions", data / "checkpoints" / "sfvd", data / "clips" / other, data / "audit" / other)
    release(folder, "v4", other)
    clips = data / "clips" / other
    old = ClipStore.open(clips / "clips.zarr")
    arrays = old.load(range(tiny_line.SAMPLED))
    arrays["frames"][tiny_line.KEPT[0]] //= 2
    digests = tiny_line.store(clips / "clips.zarr", list(old.ids), arrays["frames"], arrays["masks"]).digests
    rows = read_table(clips / "provenance.parquet", ProvenanceRecord)
    rows = [replace(row, checkpoint_digest="d" * 32, digest=digest) for row, digest in zip(rows, digests, strict=True)]
    write_table(clips / "provenance.parquet", rows, ProvenanceRecord)
    audit(data / "prepared", data / "conditions", data / "checkpoints" / "sfvd", clips, data / "audit" / other)
    metrics = read_json(data / "benchmark" / "metrics.json")
    metrics["vnet"]["mixed"]["dice"] |= {"mean": 0.95, "low": 0.94, "high": 0.96}
    metrics["vnet"]["new"] = metrics["vnet"].pop("real")
    write_json(data / "benchmark" / "metrics.json", metrics)
    write_json(data / "prepared" / "summary.json", {**read_json(data / "prepared" / "summary.json"), "sources": 14})
    release(folder, "v5", other)
    return folder


def release(folder: Path, version: str, source: str) -> None:
    tree = tiny_line.params()
    changed = tree.release.model_copy(update={"version": version, "source": source})
    tiny_factory.make(folder / "data", tree.model_copy(update={"release": changed}))
    tiny_factory.tag(folder, version, "more")


def test_what_filters_dropped_and_no_longer_drop(factory: Path) -> None:
    found = diff("tiny-wires@v1", "tiny-wires@v2", str(factory))
    ids = [row.clip_id for row in read_table(factory / "data" / "clips" / "sfvd" / "provenance.parquet", ProvenanceRecord)]
    assert found.changes == [
        ClipChange(ids[tiny_factory.RELEASED_AGAIN], "added",
                   "tiny-wires@v1 sampled it, and filter agreement dropped it (>= 0.62)", "mask not found"),
        ClipChange(ids[tiny_factory.NO_LONGER], "dropped",
                   "tiny-wires@v2 sampled it, and filter similarity dropped it (98)", "99.50 % like a clip kept before"),
    ]
    assert found.both == 6 and found.same_test is True and found.patients == (12, 12)
    text = found.text()
    assert text.startswith("tiny-wires@v1 has 7 clips, tiny-wires@v2 7: 1 added, 1 dropped, 6 unchanged; "
                           "of 8 means of Dice none moved so far that the intervals are apart\n")
    assert "1 dropped: tiny-wires@v2 sampled it, and filter similarity dropped it (98)\n" in text
    assert f"    {ids[tiny_factory.NO_LONGER]}  99.50 % like a clip kept before\n" in text
    assert "12 and 12 held-out patients, on the same test clips" in text


def test_backwards_it_is_the_other_way_round(factory: Path) -> None:
    old, new = "tiny-wires@v1", "tiny-wires@v2"
    forth, back = diff(old, new, str(factory)), diff(new, old, str(factory))
    turned = {"added": "dropped", "dropped": "added"}
    assert {(one.clip_id, turned[one.change], one.cause) for one in forth.changes} == {
        (one.clip_id, one.change, one.cause) for one in back.changes}


def test_clips_that_were_sampled_otherwise(factory: Path) -> None:
    found = diff("tiny-wires@v1", "tiny-wires@v4", str(factory))
    causes = {(one.change, one.cause) for one in found.changes}
    assert (found.count("added"), found.count("dropped"), found.both) == (7, 7, 0)
    assert causes == {("dropped", "tiny-wires@v4 did not sample it: its order is chronological, not bisection"),
                      ("added", "tiny-wires@v1 did not sample it: its order is bisection, not chronological")}


def test_another_checkpoint_other_metrics_and_other_test_clips(factory: Path) -> None:
    found = diff("tiny-wires@v1", "tiny-wires@v5", str(factory))
    assert {one.cause for one in found.changes if one.change == "dropped"} == {
        "tiny-wires@v5 did not sample it: its generator sfvd is another checkpoint"}
    by_arm = {(one.network, one.arm): one for one in found.metrics}
    assert [arm for arm, one in by_arm.items() if one.apart] == [("vnet", "mixed")]
    assert by_arm["vnet", "new"].old is None and by_arm["vnet", "real"].new is None
    text = found.text()
    assert "of 7 means of Dice 1 moved so far that the intervals are apart" in text
    assert "0.950 [0.940, 0.960]  apart" in text
    assert "BUT ON OTHER TEST CLIPS, so that they cannot be compared" in text


def test_the_same_name_with_other_pixels(factory: Path) -> None:
    found = diff("tiny-wires@v4", "tiny-wires@v5", str(factory))
    assert [one.change for one in found.changes] == ["changed"] and found.both == 6
    assert "0 added, 0 dropped, 6 unchanged, 1 with other pixels" in found.text()


def test_intervals_that_touch_are_not_apart() -> None:
    def metric(old: tuple[float, float], new: tuple[float, float]) -> Metric:
        cells = ({"mean": sum(ends) / 2, "low": ends[0], "high": ends[1]} for ends in (old, new))
        return Metric("vnet", "real", "dice", *cells)

    assert metric((0.1, 0.2), (0.3, 0.4)).apart and metric((0.3, 0.4), (0.1, 0.2)).apart
    assert not metric((0.1, 0.3), (0.3, 0.4)).apart and not metric((0.1, 0.5), (0.2, 0.3)).apart
    assert not Metric("vnet", "real", "dice", None, {"mean": 1.0, "low": None, "high": None}).apart


def test_the_command_writes_the_table(factory: Path, tmp_path: Path) -> None:
    table, words = tmp_path / "changes.parquet", ["diff", "tiny-wires@v1", "tiny-wires@v2", "--repo", str(factory)]
    done = CliRunner().invoke(app, [*words, "--out", str(table)])
    assert read_table(table, ClipChange) == diff("tiny-wires@v1", "tiny-wires@v2", str(factory)).changes
    assert "1 added, 1 dropped" in done.output
