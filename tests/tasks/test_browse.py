"""The gallery has every clip once, as it is, with its whole path; it stays light at ten thousand, and nothing is made twice."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_line
from PIL import Image
from test_report import Page

from tasks import sheets as module
from tasks.account import read_filters
from tasks.browse import browse
from tasks.clip_path import ClipPath, Paths
from tasks.gallery import SyntheticSet, read_set
from tasks.params import Params
from tasks.records import AuditRecord, ConditionRecord, Decision, ProvenanceRecord, accepted
from tasks.sheets import Sheet, sheets
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_json, read_table, write_json, write_table

RNG = np.random.default_rng(0)


def store(path: Path, clips: int, shard_clips: int, frames: int = 3, side: int = 8) -> ClipStore:
    """Smooth clips, each as bright as its row says, brighter from frame to frame."""
    specs = {"frames": ArraySpec((frames, side, side, 1), "uint8"), "masks": ArraySpec((frames, side, side), "uint8")}
    made = ClipStore.create(path, specs, shard_clips, "made")
    light = (np.arange(clips) * 37 % 150)[:, None] + 40 * np.arange(frames)
    for shard in range(-(-clips // shard_clips)):
        part = light[shard * shard_clips : (shard + 1) * shard_clips].astype(np.uint8)
        arrays = {name: np.ones((len(part), *spec.shape), np.uint8) for name, spec in specs.items()}
        arrays["frames"] *= part[:, :, None, None, None]
        ids = [f"{row * 2654435761 % 2**64:032x}"[::-1] for row in range(shard * shard_clips, shard * shard_clips + len(part))]
        made.write_shard(shard, ids, arrays)
    made.finish(clips)
    return made


def frame(sheet: Sheet, row: int, number: int) -> np.ndarray:
    """One frame of the clip at this row of the sheet, as a page's window shows it."""
    with Image.open(sheet.path) as image:
        pixels = np.asarray(image.convert("L"), np.float64)
    return pixels[row * sheet.height : (row + 1) * sheet.height, number * sheet.width : (number + 1) * sheet.width]


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_sheet_has_every_clip_s_frames_where_a_page_looks_for_them(tmp_path: Path) -> None:
    made = store(tmp_path / "clips.zarr", clips=10, shard_clips=4)
    found = list(sheets(made, tmp_path / "gallery"))
    assert [(one.number, one.last, list(one.rows)) for one in found] == [
        (0, 2, [0, 1, 2, 3]), (1, 2, [4, 5, 6, 7]), (2, 2, [8, 9])]
    for one in found:
        assert (one.frames, one.width, one.height, one.zoom) == (3, 8, 8, 4)
        for place, row in enumerate(one.rows):
            for number in range(3):
                wanted = int(made.load([row])["frames"][0, number, 0, 0, 0])
                assert np.abs(frame(one, place, number) - wanted).max() <= 6


def test_long_and_large_clips_are_thinned_and_large_shards_cut(tmp_path: Path) -> None:
    made = store(tmp_path / "clips.zarr", clips=70, shard_clips=70, frames=20, side=160)
    found = list(sheets(made, tmp_path / "gallery"))
    assert [len(one.rows) for one in found] == [64, 6]
    one = found[1]
    assert (one.frames, one.width, one.height, one.zoom) == (8, 80, 80, 1)
    last = int(made.load([69])["frames"][0, -1, 0, 0, 0])
    assert np.abs(frame(one, 5, 7) - last).max() <= 6


def test_only_what_changed_is_made_again_and_what_is_no_more_goes(tmp_path: Path) -> None:
    made, folder = store(tmp_path / "clips.zarr", clips=12, shard_clips=4), tmp_path / "gallery"
    first = [one.path.name for one in sheets(made, folder)]
    before = written(folder)
    assert [one.path.name for one in sheets(made, folder)] == first and written(folder) == before
    (folder / first[2]).write_bytes(b"torn")
    (folder / "00009-aaaaaaaaaaaa.webp").write_bytes(b"of a longer set")
    arrays = {name: values[::-1].copy() for name, values in made.load(range(4, 8)).items()}
    made.write_shard(1, made.ids[4:8], arrays)
    made.finish(12)
    again = [one.path.name for one in sheets(made, folder)]
    assert again[0] == first[0] and again[1] != first[1] and again[2] == first[2]
    assert set(written(folder)) == set(again)
    assert written(folder)[again[0]] == before[first[0]]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = store(tmp_path / "clips.zarr", clips=12, shard_clips=4), tmp_path / "gallery"
    some = sheets(made, folder)
    next(some)
    done = next(some).number
    rows: list[range] = []
    real = module._sheet
    monkeypatch.setattr(module, "_sheet", lambda store, part, shown: rows.append(part) or real(store, part, shown))
    assert len(list(sheets(made, folder))) == 3
    assert rows == [range(8, 12)] and done == 1


def test_memory_is_that_of_one_shard(tmp_path: Path) -> None:
    peaks = []
    for shards in (2, 16):
        made = store(tmp_path / f"{shards}.zarr", clips=16 * shards, shard_clips=16, frames=8, side=96)
        _ = made.digests
        tracemalloc.start()
        for _ in sheets(made, tmp_path / f"{shards}"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.15 * peaks[0]


def test_ten_thousand_clips_are_a_light_page(tmp_path: Path) -> None:
    """Every clip once; page, sheets and the pages of paths stay small."""
    data, tree = tmp_path / "data", tiny_line.params()
    tiny_line.build(data, tree)
    made = store(tmp_path / "clips.zarr", clips=10_000, shard_clips=64, frames=2)
    bank = read_table(data / "conditions" / "conditions.parquet", ConditionRecord)
    provenance = [
        ProvenanceRecord(clip_id, ["rotate", "inject"][row % 2], "a wire", digest, "sfvd", "c" * 32, bank[0].condition_id,
                         bank[0].patients, row, row, "{}", "{}", "")
        for row, (clip_id, digest) in enumerate(zip(made.ids, made.digests, strict=True))]
    decisions = [Decision(clip_id, "similarity", row % 7 > 0, float(RNG.uniform(0, 100)), "< 98", "like a clip kept before")
                 for row, clip_id in enumerate(made.ids)]
    decisions += [Decision(one.clip_id, "agreement", bool(RNG.random() > 0.1), float(RNG.random()), ">= 0.62", "mask found")
                  for one in decisions if one.keep]
    shown = SyntheticSet("sfvd", made, provenance, decisions, accepted(made.ids, decisions))
    filters = read_filters(decisions)
    paths = Paths(tree, shown, filters, data / "conditions", data / "audit", refused=False)
    page = browse(tree, shown, filters, paths, tmp_path / "reports")
    text = page.read_text()
    assert len(text) < 3_000_000
    assert text.count("data-d=\"k\"") == len(shown.kept)
    anchors = re.findall(r'class="thumb" id="c(\w{12})" href="gallery/(\d{5})\.html#c(\w{12})"', text)
    assert [first for first, _, _ in anchors] == [clip_id[:12] for clip_id in made.ids] == [second for *_, second in anchors]
    assert [int(sheet) for _, sheet, _ in anchors] == [row // 64 for row in range(10_000)]
    files = list((tmp_path / "reports" / "gallery").iterdir())
    assert len(files) == 2 * 157 + 1
    assert max(path.stat().st_size for path in files) < 150_000


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[Path, Params]]:
    data, tree = tmp_path / "data", tiny_line.params()
    tiny_line.build(data, tree)
    yield data, tree


def opened(data: Path, tree: Params, refused: bool = False) -> tuple[SyntheticSet, Paths]:
    shown = read_set("sfvd", data / "clips", data / "decisions")
    assert shown is not None
    return shown, Paths(tree, shown, read_filters(shown.decisions), data / "conditions", data / "audit" / "sfvd", refused)


def told(one: ClipPath) -> str:
    return " | ".join(" ".join([step.title, *step.lines]) for step in one.steps)


def test_the_path_of_a_clip_is_that_of_the_files(line: tuple[Path, Params]) -> None:
    data, tree = line
    shown, paths = opened(data, tree)
    bank = {record.condition_id: record for record in read_table(data / "conditions" / "conditions.parquet", ConditionRecord)}
    kept, wrong, twin = (paths.of(row) for row in (0, tiny_line.WRONG, tiny_line.DUPLICATES[0]))
    record = shown.provenance[tiny_line.WRONG]
    source = bank[record.condition_id]
    words = told(wrong)
    assert "Asked for: a mask sequence." in words and f"patients {', '.join(source.patients)}." in words
    assert all(clip_id[:8] in words for clip_id in source.clips)
    assert f"draw 1 of this condition, seed {record.seed}, shard 1; drawn for it: gamma 1.5." in words
    assert "Filter similarity Score 85, threshold 98: kept (unlike every kept clip)." in words
    assert "Filter agreement Score 0.31, threshold >= 0.62: dropped (mask not found)." in words
    assert "Not released Dropped by agreement." in words and (wrong.kept, wrong.dropped_by) == (False, "agreement")
    assert [step.keep for step in wrong.steps] == [None, None, True, False, None, False]
    assert "Filter agreement" not in told(twin) and twin.scores == {"similarity": 99.1}
    assert told(kept).endswith("To be released In tiny-wires v1.") and kept.kept
    assert "Not released Kept, but tiny-wires v1 is refused" in told(opened(data, tree, refused=True)[1].of(0))


def test_the_path_says_which_training_clip_is_likest(line: tuple[Path, Params]) -> None:
    data, tree = line
    shown, paths = opened(data, tree)
    threshold = read_json(data / "audit" / "sfvd" / "audit.json")["threshold"]["value"]
    compared = [row for row in read_table(data / "audit" / "sfvd" / "audit.parquet", AuditRecord) if row.nearest]
    assert compared
    for row in compared:
        step = paths.of(shown.row(row.clip_id)).steps[-2]
        verdict = "a near copy" if row.near_copy else "no near copy"
        nearest = f"training clip {str(row.nearest)[:8]} of patient {row.patient}: correlation {row.similarity:.3f}, "
        assert nearest in step.lines[0]
        assert step.lines[0].endswith(f"from {threshold:.3f} on: {verdict}.")
    write_json(data / "audit" / "sfvd" / "audit.json", {"clips_digest": "of clips sampled before"})
    assert all(step.title != "Audit" for step in opened(data, tree)[1].of(0).steps)


def test_a_score_lies_on_its_filter_s_line(line: tuple[Path, Params]) -> None:
    """Agreement gave 0.31 and 0.8 to 0.89, and its threshold is 0.62: the line goes from 0.31 to 0.89."""
    _, paths = opened(*line)
    wrong, best = (paths.of(row).steps[3].scale for row in (tiny_line.WRONG, 9))
    assert wrong is not None and best is not None
    assert wrong.place == 0 and best.place == 1
    assert wrong.limits == best.limits == (pytest.approx((0.62 - 0.31) / (0.89 - 0.31)),)


def test_what_was_left_open_is_not_said_to_be_asked_for(line: tuple[Path, Params]) -> None:
    data, tree = line
    tree = tree.model_copy(update={"conditions": {"kind": "clips", "count": 5}})
    table = data / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    asked = {"label": "rotate", "text": "a wire", "sampling": '{"use": ["text", "motion"]}'}
    write_table(table, [ProvenanceRecord(**{**vars(row), **asked}) for row in rows], ProvenanceRecord)
    words = told(opened(data, tree)[1].of(0))
    assert "“a wire”, the motion." in words and "class rotate" not in words and "first frame" not in words


def test_examples_are_a_kept_clip_and_the_one_that_came_furthest(line: tuple[Path, Params]) -> None:
    data, tree = line
    shown, paths = opened(data, tree)
    (kept, first), (dropped, second) = paths.examples(data / "prepared", data / "conditions")
    assert kept.clip_id == shown.provenance[tiny_line.KEPT[3]].clip_id
    assert dropped.clip_id == shown.provenance[tiny_line.WRONG].clip_id
    assert first.moving != second.moving and "outlined" in first.alt


def test_pages_follow_decisions_and_name_only_what_is_there(line: tuple[Path, Params]) -> None:
    data, tree = line
    out = data / "reports"
    shown, paths = opened(data, tree)
    filters = read_filters(shown.decisions)
    page = Page(browse(tree, shown, filters, paths, out).read_text())
    before = written(out / "gallery")
    thumbs = [attributes for tag, attributes in page.tags if attributes.get("class") == "thumb"]
    assert [one["data-d"] for one in thumbs] == [
        "0" if row in tiny_line.DUPLICATES else "1" if row == tiny_line.WRONG else "k" for row in range(tiny_line.SAMPLED)]
    assert [one["data-s"] for one in thumbs][:4] == ["80,0.8", "81,0.81", "82,0.82", "99.1,"]
    for sheet in sorted((out / "gallery").glob("*.html")):
        own = Page(sheet.read_text())
        for name in own.values("src") + own.values("href"):
            assert (sheet.parent / name.split("#")[0]).resolve().exists(), name
        assert {f"c{clip_id[:12]}" for clip_id in shown.store.ids} >= set(own.values("id")) != set()
    lost = [Decision(clip_id, "agreement", False, float("nan"), "none", "all wrong") for clip_id in shown.store.ids]
    write_table(data / "decisions" / "sfvd" / "decisions.parquet", lost, Decision)
    (out / "gallery" / "00007.html").write_text("of a longer set")
    shown, paths = opened(data, tree)
    text = browse(tree, shown, read_filters(lost), paths, out).read_text()
    assert 'data-d="k"' not in text and "0 kept" in text
    after = written(out / "gallery")
    assert after.keys() == before.keys()
    assert all((after[name] == before[name]) == (not name.endswith(".html")) for name in before)  # no sheet, every page


def test_it_can_be_moved(line: tuple[Path, Params], tmp_path: Path) -> None:
    """No address of this machine is in it, and the same run gives the same bytes elsewhere."""
    data, tree = line
    shutil.copytree(data, tmp_path / "else")
    pages = []
    for where in (data, tmp_path / "else"):
        shown, paths = opened(where, tree)
        browse(tree, shown, read_filters(shown.decisions), paths, where / "reports")
        files = sorted(path for path in (where / "reports").rglob("*") if path.is_file())
        pages.append({str(path.relative_to(where)): path.read_bytes() for path in files})
    assert pages[0] == pages[1]
    assert not any(str(tmp_path).encode() in content for content in pages[0].values())
