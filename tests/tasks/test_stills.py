"""Single images to be animated: from training clips or from a folder, never of somebody who is held out."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_line
import yaml
from PIL import Image
from pydantic import ValidationError

from models.clip import UNKNOWN
from tasks.arms import refuse_leak
from tasks.condition import STORE, make_conditions
from tasks.conditions.stills import Params
from tasks.find_source import find_file
from tasks.params import Params as Tree
from tasks.params import load_params
from tasks.patients import outside_name, outside_patient
from tasks.prepare import prepare
from tasks.records import ClipRecord, ConditionRecord, PlanRecord, ProvenanceRecord, QuarantineRecord
from tasks.release import release
from tasks.report import report
from tasks.sample import _condition
from tasks.store import ArraySpec, ClipStore
from tasks.tables import file_digest, read_json, read_table, write_json, write_table

SAMPLES = os.environ.get("CINEFAB_SAMPLES")
SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
LABELS = ["common"] * 4 + ["rare", None] + ["common", "rare"] * 2
FRAMES, SIDE = 4, 16
PATTERN = r"^(?P<label>\w+)/(?P<patient>[^/_]+)_"


def prepared(folder: Path, channels: int = 1) -> Path:
    """Ten clips of ten patients p0...p9: six for training, one of them without a class; two for validation, two for testing."""
    frames = np.random.default_rng(0).integers(0, 256, (10, FRAMES, SIDE, SIDE, channels), dtype=np.uint8)
    arrays = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec((FRAMES, SIDE, SIDE), "uint8")}
    store = ClipStore.create(folder / "clips.zarr", arrays, 16, "f")
    ids = [f"{row:032x}" for row in range(10)]
    store.write_shard(0, ids, {"frames": frames, "masks": np.ones((10, FRAMES, SIDE, SIDE), np.uint8)})
    store.finish(10)
    rows = [ClipRecord(ids[row], f"p{row}", f"{row}", 0, 1, LABELS[row], f"text {row}", True, row, split)  # type: ignore[arg-type]
            for row, split in enumerate(SPLITS)]
    write_table(folder / "manifest.parquet", rows, ClipRecord)
    write_json(folder / "summary.json", {"scaling": {"window": [0.5, 99.5], "fit": "pad"}})
    return folder


def pictures(folder: Path, names: list[str], size: tuple[int, int] = (24, 24), seed: int = 9) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, size, dtype=np.uint8)).save(folder / name)
    return folder


NAMES = ["sick/a_1.png", "sick/b_1.png", "sick/c_1.png", "well/d_1.png", "well/d_2.png"]


def entry(folder: Path, **changed: Any) -> dict[str, Any]:
    return {"kind": "stills", "count": 99, "folder": str(folder), "patient_pattern": PATTERN, **changed}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bank(folder: Path) -> list[ConditionRecord]:
    return read_table(folder / "conditions.parquet", ConditionRecord)


def refused(folder: Path) -> dict[str, str]:
    return {one.file: one.reason for one in read_table(folder / "quarantine.parquet", QuarantineRecord)}


def named(reasons: dict[str, str], images: Path) -> dict[str, str]:
    """By the last file that has the digest."""
    return {str(find_file(digest, images)[-1].relative_to(images)): reason for digest, reason in reasons.items()}


# --- of training clips -----------------------------------------------------------------------------------------------------


def test_stills_are_first_frames_of_training_clips_classes_in_turn(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared")
    assert make_conditions({"kind": "stills", "count": 4}, 0, data, tmp_path / "bank") == 4
    rows = bank(tmp_path / "bank")
    assert [one.label for one in rows] == ["common", "rare", "common", "common"]
    store, clips = ClipStore.open(tmp_path / "bank" / STORE), ClipStore.open(data / "clips.zarr")
    assert store.arrays == clips.arrays and list(store.ids) == [one.condition_id for one in rows]
    for row, one in enumerate(rows):
        origin = int(one.clips[0], 16)
        assert SPLITS[origin] == "train" and one.patients == [f"p{origin}"] and one.text == f"text {origin}"
        first = clips.load([origin])["frames"][:, :1]
        assert (store.load([row])["frames"] == first).all()  # in every place of the clip
    assert (store.load(range(4))["masks"] == UNKNOWN).all()
    assert refused(tmp_path / "bank") == {}


def test_what_a_generator_is_given_begins_with_the_still(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared", channels=3)
    make_conditions({"kind": "stills", "count": 2}, 0, data, tmp_path / "bank")
    rows = bank(tmp_path / "bank")
    plan = [PlanRecord("0", one.label, one.text, one.condition_id, row, 0, 1, 0) for row, one in enumerate(rows)]
    given = _condition(ClipStore.open(tmp_path / "bank" / STORE), plan)
    assert given.reference is not None and given.reference.shape == (2, FRAMES, 3, SIDE, SIDE)
    clips = ClipStore.open(data / "clips.zarr").read([int(one.clips[0], 16) for one in rows]).frames
    assert (given.reference[:, 0] == clips[:, 0]).all()
    assert given.labels == tuple(one.label for one in rows) and not given.annotated.any()


def test_several_frames_of_a_clip_and_clips_without_a_class(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared")
    made = make_conditions({"kind": "stills", "count": 99, "frames": 2, "labelled_only": False}, 0, data, tmp_path / "bank")
    assert made == 12
    rows, store = bank(tmp_path / "bank"), ClipStore.open(tmp_path / "bank" / STORE)
    assert Counter(one.patients[0] for one in rows) == {f"p{number}": 2 for number in range(6)}
    clips = ClipStore.open(data / "clips.zarr")
    for one in {one.clips[0] for one in rows}:
        own = [store.load([row])["frames"][0, 0].tobytes() for row, other in enumerate(rows) if other.clips == [one]]
        whole = clips.load([int(one, 16)])["frames"][0]
        assert set(own) == {whole[0].tobytes(), whole[2].tobytes()}  # of four, evenly
    with pytest.raises(ValueError, match=r"conditions.frames: 5 is more than the 4 frames"):
        make_conditions({"kind": "stills", "count": 9, "frames": 5}, 0, data, tmp_path / "more")


def test_no_training_clip_has_a_class(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared")
    rows = read_table(data / "manifest.parquet", ClipRecord)
    write_table(data / "manifest.parquet", [replace(row, label=None) for row in rows], ClipRecord)
    with pytest.raises(ValueError, match=r"no training clip has a label; give .* or labelled_only: false"):
        make_conditions({"kind": "stills", "count": 4}, 0, data, tmp_path / "bank")


@pytest.mark.parametrize("kind", ["stills", "clips"])
def test_another_split_makes_another_bank_of_the_same_clips(tmp_path: Path, kind: str) -> None:
    """The store of clips is the same then: nothing but the manifest says that the bank on disk is of the wrong patients."""
    data = prepared(tmp_path / "prepared")
    make_conditions({"kind": kind, "count": 4}, 0, data, tmp_path / "bank")
    turned: dict[str, Any] = {"train": "test", "test": "train", "val": "val"}
    rows = read_table(data / "manifest.parquet", ClipRecord)
    write_table(data / "manifest.parquet", [replace(row, split=turned[row.split]) for row in rows], ClipRecord)
    make_conditions({"kind": kind, "count": 4}, 0, data, tmp_path / "bank")
    rows_now = bank(tmp_path / "bank")
    assert {one.patients[0] for one in rows_now} == {"p8", "p9"}
    assert list(ClipStore.open(tmp_path / "bank" / STORE).ids) == [one.condition_id for one in rows_now]


# --- of a folder -----------------------------------------------------------------------------------------------------------


def test_images_of_a_folder_with_their_class_and_patient_from_the_name(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", NAMES, size=(32, 16))
    assert make_conditions(entry(folder, labels={"well": "healthy"}), 0, data, tmp_path / "bank") == 5
    rows, store = bank(tmp_path / "bank"), ClipStore.open(tmp_path / "bank" / STORE)
    assert [one.label for one in rows] == ["healthy", "sick", "healthy", "sick", "sick"]  # in turn
    assert Counter(one.patients[0] for one in rows) == {"outside:scans:a": 1, "outside:scans:b": 1, "outside:scans:c": 1,
                                                        "outside:scans:d": 2}
    assert all(one.clips == [] for one in rows)
    frames = store.load(range(5))["frames"]
    assert frames.shape == (5, FRAMES, SIDE, SIDE, 1) and (frames == frames[:, :1]).all()
    assert (frames[..., :4, :] == 0).all() and (frames[..., -4:, :] == 0).all()  # padded to keep the aspect, as the data set is
    ramp = np.linspace(50, 150, 32 * 16).reshape(32, 16).astype(np.uint8)  # little contrast
    (tmp_path / "ramp" / "sick").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "ramp/sick/r_1.png")
    make_conditions(entry(tmp_path / "ramp"), 0, data, tmp_path / "ramps")
    inner = ClipStore.open(tmp_path / "ramps" / STORE).load([0])["frames"][0, 0, :, 4:-4]
    assert inner.min() < 10 and inner.max() > 245  # percentiles of the image became black and white


def test_a_table_says_class_patient_and_text(tmp_path: Path) -> None:
    data = prepared(tmp_path / "prepared", channels=3)
    folder = pictures(tmp_path / "scans", ["one.png", "two.png", "one_mask.png"])
    (folder / "who.csv").write_text("image,person,finding\none.png,anna,cyst\ntwo.png,bert,\n")
    asked = {"kind": "stills", "count": 9, "folder": str(folder), "table": "who.csv", "file_column": "image",
             "patient_column": "person", "label_column": "finding", "text": "a {finding}", "mask_suffix": "_mask"}
    assert make_conditions(asked, 0, data, tmp_path / "bank") == 1
    (one,) = bank(tmp_path / "bank")
    assert (one.label, one.text, one.patients) == ("cyst", "a cyst", ["outside:scans:anna"])
    assert named(refused(tmp_path / "bank"), folder) == {"two.png": "has no label, and labelled_only is true"}
    assert make_conditions({**asked, "labelled_only": False}, 0, data, tmp_path / "bank") == 2
    with pytest.raises(ValueError, match=r"table: .*none.csv does not exist"):
        make_conditions({**asked, "table": "none.csv"}, 0, data, tmp_path / "bank")


def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", NAMES)
    (folder / "sick/e_1.png").write_bytes((folder / NAMES[0]).read_bytes()[:60])
    (folder / "sick/f_1.png").write_bytes(b"")
    shutil.copy(folder / NAMES[0], folder / "well/g_1.png")
    Image.new("L", (9, 9), 7).save(folder / "well/h_1.png")
    pictures(folder, ["nobody.png"], seed=3)
    assert make_conditions(entry(folder), 0, data, tmp_path / "bank") == 5
    expected = {"sick/e_1.png": "cannot be read", "sick/f_1.png": "cannot be read",
                "well/h_1.png": "is constant", "nobody.png": "has no patient",
                "well/g_1.png": f"repeats the pixels of {file_digest(folder / NAMES[0])}"}
    found = named(refused(tmp_path / "bank"), folder)
    assert set(found) == set(expected)
    assert all(expected[file] in reason for file, reason in found.items())


def test_two_runs_give_the_same_ids_wherever_the_folder_is_and_whatever_its_files_are_called(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", NAMES)
    make_conditions(entry(folder, count=3), 5, data, tmp_path / "bank")
    before, shard = contents(tmp_path / "bank"), tmp_path / "bank" / STORE / "commits" / "00000.json"
    made = shard.stat().st_ino
    (tmp_path / "elsewhere").mkdir()
    folder = folder.rename(tmp_path / "elsewhere" / "scans")
    make_conditions(entry(folder, count=3), 5, data, tmp_path / "bank")
    assert contents(tmp_path / "bank") == before and shard.stat().st_ino == made  # nothing was made again
    ids = [one.condition_id for one in bank(tmp_path / "bank")]
    (folder / NAMES[0]).rename(folder / "sick/z_7.png")
    make_conditions(entry(folder, count=3), 5, data, tmp_path / "again")
    assert [one.condition_id for one in bank(tmp_path / "again")] == ids


def test_other_images_make_the_bank_again(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", NAMES)
    make_conditions(entry(folder), 0, data, tmp_path / "bank")
    before = ClipStore.open(tmp_path / "bank" / STORE)
    pictures(folder, NAMES, seed=10)  # under the old names
    make_conditions(entry(folder), 0, data, tmp_path / "bank")
    after = ClipStore.open(tmp_path / "bank" / STORE)
    assert not set(before.ids) & set(after.ids) and not set(before.digests) & set(after.digests)
    assert list(after.ids) == [one.condition_id for one in bank(tmp_path / "bank")]


def test_a_folder_without_a_usable_image(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), tmp_path / "scans"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"scans holds no image .*; give the folder that does"):
        make_conditions(entry(folder), 0, data, tmp_path / "bank")
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of the 1 images in .*scans is usable, e.g. [0-9a-f]{64} has no .*; give other"):
        make_conditions(entry(folder), 0, data, tmp_path / "bank")
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="scans is no folder"):
        make_conditions(entry(folder), 0, data, tmp_path / "bank")


def test_a_missing_folder_stops_the_run_when_parameters_are_read(tmp_path: Path) -> None:
    tree = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    tree["conditions"] = entry(tmp_path / "scans")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=r"conditions: .*scans is no folder; give the one that holds the images"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "scans").mkdir()
    load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("given", "message"), [
    ({"patient_pattern": PATTERN}, "patient_pattern: describes a folder of images; give folder"),
    ({"folder": "x", "frames": 2}, "frames: counts those of a training clip"),
    ({"folder": "x", "colour": True}, "colour"),
    ({"count": 0}, "greater than 0"),
])
def test_what_a_source_does_not_use_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Params.model_validate({"count": 2, **given})


# --- leaks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patient", "split"), [("p6", "val"), ("p9", "test")])
def test_an_image_of_a_held_out_patient_stops_the_run(tmp_path: Path, patient: str, split: str) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", [*NAMES, f"sick/{patient}_1.png"])
    with pytest.raises(ValueError, match=rf"leak: [0-9a-f]{{16}} in .* is of patient '{patient}', who is in the {split} split"):
        make_conditions(entry(folder, count=1), 0, data, tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_an_image_of_a_training_patient_is_no_leak(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", ["sick/p0_1.png"])
    assert make_conditions(entry(folder), 0, data, tmp_path / "bank") == 1


def test_an_image_like_a_held_out_frame_is_left_out_whatever_it_is_called(tmp_path: Path) -> None:
    data, folder = prepared(tmp_path / "prepared"), pictures(tmp_path / "scans", NAMES)
    clips = ClipStore.open(data / "clips.zarr")
    for name, row in (("sick/stolen_1.png", 8), ("sick/seen_1.png", 0)):  # darker copies of a test and of a training frame
        Image.fromarray((clips.load([row])["frames"][0, 2, ..., 0] * 0.8).astype(np.uint8)).save(folder / name)
    assert make_conditions(entry(folder), 0, data, tmp_path / "bank") == 6
    found = named(refused(tmp_path / "bank"), folder)
    assert list(found) == ["sick/stolen_1.png"]
    assert "looks like a frame of a held-out clip" in found["sick/stolen_1.png"]


def test_names_of_outside_patients() -> None:
    assert outside_patient("a:b", "c:d") == "outside:a_b:c:d"
    assert outside_name("outside:a_b:c:d") == "c:d"
    assert outside_name("c:d") is None


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tree]:
    """A whole line whose conditions are three images of a folder, by outside patients."""
    root, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    data = root / "data"
    tiny_line.build(data, tree)
    summary = data / "prepared" / "summary.json"
    write_json(summary, {**read_json(summary), "scaling": {"window": [0.5, 99.5], "fit": "pad"}})
    asked = entry(pictures(root / "scans", NAMES[:3]))
    tree = tree.model_copy(update={"conditions": asked})
    make_conditions(asked, 0, data / "prepared", data / "conditions")
    rows = bank(data / "conditions")
    table = data / "clips" / "sfvd" / "provenance.parquet"
    was = read_table(table, ProvenanceRecord)
    write_table(table, [replace(one, condition_id=rows[row % 3].condition_id, patients=rows[row % 3].patients)
                        for row, one in enumerate(was)], ProvenanceRecord)
    return data, tree


def released(data: Path, tree: Tree, out: Path) -> dict[str, Any]:
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark"))
    return release(tree.release, tree.dataset, tree.audit, *folders, out)


def test_a_release_says_who_came_from_outside(line: tuple[Path, Tree], tmp_path: Path) -> None:
    data, tree = line
    counts = released(data, tree, tmp_path / "release")["counts"]
    assert (counts["patients"], counts["outside_patients"]) == (3, 3)
    card = (tmp_path / "release" / "README.md").read_text()
    assert "| patients behind them | 3 (3 of them not of this data set) |" in card
    assert "come from 0 of these and from 3 patients of another collection." in card


def test_a_report_shows_outside_stills_and_not_where_they_lie(line: tuple[Path, Tree], tmp_path: Path) -> None:
    data, tree = line
    page = report(tree, data, tmp_path / "reports").read_text()
    assert "outside:scans:" in page and "…/scans" in page
    assert str(data.parent) not in page


@pytest.mark.parametrize(("patients", "where"), [
    (["outside:scans:patient08"], "the test split"),  # held out since the bank was made
    (["outside:scans:patient06"], "the val split"),
    (["outside:scans:a", "patient08"], "the test split"),
    (["outside:scans:"], "no split of the manifest"),
    (["scans:a"], "no split of the manifest"),
])
def test_a_release_refuses_held_out_and_unknown_patients_all_the_same(line: tuple[Path, Tree], tmp_path: Path,
                                                                      patients: list[str], where: str) -> None:
    data, tree = line
    shutil.copytree(data, tmp_path / "data")
    table = tmp_path / "data" / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    write_table(table, [replace(rows[0], patients=patients), *rows[1:]], ProvenanceRecord)
    with pytest.raises(ValueError, match=f"is of patient '{patients[-1]}', who is in {where}"):
        released(tmp_path / "data", tree, tmp_path / "release")
    manifest = read_table(data / "prepared" / "manifest.parquet", ClipRecord)
    if where == "the test split":
        with pytest.raises(ValueError, match=r"leak: patients behind the masks of .* share patient08"):
            refuse_leak(manifest, tmp_path / "data" / "clips" / "sfvd")


def test_a_held_out_patient_of_the_data_set_called_outside_is_held_out(line: tuple[Path, Tree], tmp_path: Path) -> None:
    data, tree = line
    shutil.copytree(data, tmp_path / "data")
    table = tmp_path / "data" / "prepared" / "manifest.parquet"
    rows = read_table(table, ClipRecord)
    changed = [replace(row, patient="outside:scans:a") if row.patient == "patient08" else row for row in rows]
    write_table(table, changed, ClipRecord)
    with pytest.raises(ValueError, match="is of patient 'outside:scans:a', who is in the test split"):
        released(tmp_path / "data", tree, tmp_path / "release")


# --- real data -------------------------------------------------------------------------------------------------------------


def test_real_ultrasound_images(tmp_path: Path) -> None:
    """Scaled as a real `prepare` says; all images are read, equal ones once."""
    folder = Path(SAMPLES or "/nowhere") / "breast_ultrasound_images"
    if not (folder / "manifest.csv").exists():
        pytest.skip("CINEFAB_SAMPLES has no breast_ultrasound_images")
    data = prepared(tmp_path / "prepared")
    asked = {"kind": "stills", "count": 30, "folder": str(folder), "table": "manifest.csv", "patient_column": "file",
             "label_column": "label", "labels": {"malignant": "cancer"}, "mask_suffix": "_mask"}
    assert make_conditions(asked, 0, data, tmp_path / "bank") == 30
    rows = bank(tmp_path / "bank")
    assert [one.label for one in rows[:3]] == ["benign", "cancer", "normal"]
    assert Counter(one.label for one in rows) == {"benign": 10, "cancer": 10, "normal": 10}
    assert not any("mask" in one.patients[0] for one in rows)
    assert all("repeats the pixels of" in reason for reason in refused(tmp_path / "bank").values())


def test_the_data_sets_own_scaling_reaches_the_stills(tmp_path: Path) -> None:
    """`fit: stretch` of the data set holds for images of a folder: no borders."""
    root, rng = tmp_path / "raw", np.random.default_rng(4)
    for patient in range(6):
        (root / f"q{patient}_x").mkdir(parents=True)
        for frame in range(4):
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(root / f"q{patient}_x" / f"{frame}.png")
    dataset = tiny_line.DatasetParams.model_validate({
        "name": "made", "reader": "images", "location": root, "clip_frames": 4, "frame_size": (16, 16), "fit": "stretch",
        "options": {"patient_pattern": "(?P<patient>q.)_"}, "split": {"train": 0.5, "val": 0.2, "test": 0.3}})
    prepare(dataset, 0, tmp_path / "prepared")
    folder = pictures(tmp_path / "scans", NAMES, size=(32, 16))
    make_conditions(entry(folder), 0, tmp_path / "prepared", tmp_path / "bank")
    frames = ClipStore.open(tmp_path / "bank" / STORE).load([0])["frames"][0, 0, ..., 0]
    assert frames[:, :4].max() > 0 and frames[:, -4:].max() > 0
