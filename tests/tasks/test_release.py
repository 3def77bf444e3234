"""A release holds the accepted clips and nothing else, opens with zarr and pyarrow alone, and is the same when made again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_line
import zarr

from tasks.account import FilterAccount, interval, p_value, read_benchmark
from tasks.changelog import changelog
from tasks.params import Params
from tasks.records import AuditRecord, Decision, ProvenanceRecord, accepted
from tasks.release import ReleasedClip, release
from tasks.store import ClipStore
from tasks.store_check import verify
from tasks.tables import file_digest, read_json, read_table, write_json, write_table
from tasks.verify import verify_tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    make(data, tree)
    return data, tree


@pytest.fixture
def line(made: tuple[Path, Params], tmp_path: Path) -> tuple[Path, Params]:
    """A copy of its own for a test that changes something."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data", made[1]


def make(data: Path, tree: Params) -> dict[str, Any]:
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    return release(tree.release, tree.dataset, tree.audit, *folders)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def decisions(data: Path) -> Path:
    return data / "decisions" / "sfvd" / "decisions.parquet"


def test_only_accepted_clips_with_the_pixels_that_were_sampled(made: tuple[Path, Params]) -> None:
    """Read as a stranger would: zarr and pyarrow, none of ours."""
    data, _ = made
    opened = zarr.open_group(data / "release" / "clips.zarr", mode="r")
    sampled = zarr.open_group(data / "clips" / "sfvd" / "clips.zarr", mode="r")
    assert (np.asarray(opened["frames"]) == np.asarray(sampled["frames"])[tiny_line.KEPT]).all()
    assert (np.asarray(opened["masks"]) == np.asarray(sampled["masks"])[tiny_line.KEPT]).all()
    provenance = pq.read_table(data / "clips" / "sfvd" / "provenance.parquet").to_pylist()
    manifest = pq.read_table(data / "release" / "manifest.parquet").to_pylist()
    assert [row["clip_id"] for row in manifest] == [provenance[row]["clip_id"] for row in tiny_line.KEPT]
    for row, masks in zip(manifest, np.asarray(opened["masks"]), strict=True):
        names = ["wire", "tip <b>bold</b>"]
        assert row["classes"] == [names[label - 1] for label in np.unique(masks) if label]
        assert (row["frames"], row["height"], row["width"]) == masks.shape
    assert pq.read_table(data / "release" / "provenance.parquet").to_pylist() == [provenance[row] for row in tiny_line.KEPT]


def test_decisions_about_dropped_clips_are_there_too(made: tuple[Path, Params]) -> None:
    rows = pq.read_table(made[0] / "release" / "decisions.parquet").to_pylist()
    assert rows == pq.read_table(decisions(made[0])).to_pylist()
    assert sum(not row["keep"] for row in rows) == 3


def test_facts_and_digests(made: tuple[Path, Params]) -> None:
    folder = made[0] / "release"
    facts = read_json(folder / "release.json")
    assert facts["counts"] | {"clips_by_class": None} == {
        "sampled": 10, "dropped": 3, "clips": 7, "conditions": 5, "patients": 5, "outside_patients": 0,
        "clips_by_class": None, "clips_by_label": {},
        "training_clips_by_label": {},
    }
    assert facts["files"] == {name: file_digest(folder / name) for name in facts["files"]}
    assert set(facts["files"]) | {"clips.zarr", "release.json"} == {path.name for path in folder.iterdir()}
    assert facts["store_digest"] == ClipStore.open(folder / "clips.zarr").digest
    assert verify(folder / "clips.zarr") == []


def test_again_and_elsewhere_the_same_bytes(line: tuple[Path, Params]) -> None:
    data, tree = line
    before = contents(data / "release")
    make(data, tree)
    assert contents(data / "release") == before
    shutil.rmtree(data / "release")
    make(data, tree)
    assert contents(data / "release") == before
    assert not any(str(data).encode() in content for content in before.values())


def test_a_half_made_release_is_completed(line: tuple[Path, Params]) -> None:
    """As a kill leaves it: one shard and its record gone, a torn table, a stray file, no release.json."""
    data, tree = line
    before = contents(data / "release")
    folder = data / "release"
    (folder / "release.json").unlink()
    (folder / "manifest.parquet").write_bytes(b"PAR1")
    (folder / ".provenance.parquet.partial").write_bytes(b"half")
    first, last = sorted((folder / "clips.zarr" / "commits").glob("0*.json"))
    kept = first.stat().st_ino
    last.unlink()
    make(data, tree)
    assert contents(folder) == before
    assert first.stat().st_ino == kept  # the finished shard was not written again


@pytest.mark.parametrize("name", ["manifest.parquet", "README.md", "clips.zarr/frames/c.0.0.0.0.0"])
def test_verify_knows_a_release_without_a_ledger(line: tuple[Path, Params], name: str) -> None:
    """As versions before ledgers are; and one whose store is gone is none."""
    released = line[0] / "release"
    assert verify_tree(released) == (2, [])
    content = (released / name).read_bytes()
    (released / name).write_bytes(content[:20] + b"?" + content[21:])
    assert any(name in problem for problem in verify_tree(released)[1])
    shutil.rmtree(released / "clips.zarr")
    assert f"{released / 'clips.zarr'}: is missing" in verify_tree(released)[1]


def test_other_decisions_make_another_release(line: tuple[Path, Params]) -> None:
    data, tree = line
    rows = read_table(decisions(data), Decision)
    first = rows[0].clip_id
    write_table(decisions(data), [replace(row, keep=row.keep and row.clip_id != first) for row in rows], Decision)
    facts = make(data, tree)
    assert facts["counts"]["clips"] == 6
    assert first not in ClipStore.open(data / "release" / "clips.zarr").ids
    assert verify(data / "release" / "clips.zarr") == []


def test_a_release_without_clips_is_refused_in_one_line(line: tuple[Path, Params]) -> None:
    data, tree = line
    write_table(decisions(data), [replace(row, keep=False) for row in read_table(decisions(data), Decision)], Decision)
    message = "dropped all 10 clips of 'sfvd', 10 by 'similarity'; loosen filters.similarity or sample more"
    with pytest.raises(ValueError, match=message) as caught:
        make(data, tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("patient", "where"), [("patient08", "the test split"), ("nobody", "no split of the manifest")])
def test_a_clip_made_from_a_held_out_patient_is_refused(line: tuple[Path, Params], patient: str, where: str) -> None:
    data, tree = line
    table = data / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    write_table(table, [replace(rows[0], patients=[patient]), *rows[1:]], ProvenanceRecord)
    with pytest.raises(ValueError, match=f"is of patient '{patient}', who is in {where}"):
        make(data, tree)


def test_pixels_that_are_not_the_sampled_ones_are_refused(line: tuple[Path, Params]) -> None:
    data, tree = line
    table = data / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    write_table(table, [replace(rows[0], digest="0" * 32), *rows[1:]], ProvenanceRecord)
    shutil.rmtree(data / "release")
    with pytest.raises(ValueError, match=f"clip {rows[0].clip_id}: other pixels than were sampled"):
        make(data, tree)
    assert not (data / "release" / "release.json").exists()


def test_stale_decisions_are_refused(line: tuple[Path, Params]) -> None:
    data, tree = line
    rows = read_table(decisions(data), Decision)
    write_table(decisions(data), [row for row in rows if row.clip_id != rows[0].clip_id], Decision)
    with pytest.raises(ValueError, match="1 of 10 sampled clips have none, 0 judged clips do not exist; run `cinefab curate`"):
        make(data, tree)


def test_no_filter_keeps_all(made: tuple[Path, Params]) -> None:
    provenance = read_table(made[0] / "clips" / "sfvd" / "provenance.parquet", ProvenanceRecord)
    assert accepted([record.clip_id for record in provenance], []) == list(range(10))


def test_the_card_s_own_example_opens_it_without_this_project(made: tuple[Path, Params], tmp_path: Path) -> None:
    """The snippet in README.md, run in a bare interpreter inside a copy of the folder."""
    shutil.copytree(made[0] / "release", tmp_path / "copy")
    snippet = re.search(r"```python\n(.*?)```", (tmp_path / "copy" / "README.md").read_text(), re.S)
    assert snippet
    check = "\nassert frames.shape == (6, 32, 32, 1) and masks.shape == (6, 32, 32) and len(manifest) == 7"
    check += "\nimport sys\nassert not {'tasks', 'models', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-I", "-c", snippet[1] + check], cwd=tmp_path / "copy", check=True)


def test_the_card_says_what_the_files_say(made: tuple[Path, Params]) -> None:
    card = (made[0] / "release" / "README.md").read_text()
    assert "SYNTHETIC" in card
    assert "SIMULATED" in card
    assert "| similarity | 10 | 2 | 98 | 80, 85.5, 99.1 |" in card
    assert "| agreement | 8 | 1 | >= 0.62 |" in card
    assert "| train | 6 | 6 | 5 | 5 |" in card
    assert "sampled 10, dropped 3, released 7" in card
    assert "`" + "c" * 32 + "`" in card
    verdict = read_json(made[0] / "benchmark" / "verdict.json")["sentence"]
    assert verdict in card
    mixed = read_json(made[0] / "benchmark" / "metrics.json")["vnet"]["mixed"]["dice"]
    assert f"| vnet | mixed | {mixed['mean']:.3f} [{mixed['low']:.3f}, {mixed['high']:.3f}] |" in card
    assert "<b>" not in card  # a class of that name is text, not markup
    described = set(re.findall(r"`(\w+)`", card[card.index("| table | column |") :]))
    assert described == {field.name for row in (ReleasedClip, Decision, ProvenanceRecord, AuditRecord) for field in fields(row)}


def test_the_card_of_real_data_without_a_benchmark(line: tuple[Path, Params]) -> None:
    data, _ = line
    tree = tiny_line.params(simulated=False, licence="CC | BY\n# not a heading")
    shutil.rmtree(data / "benchmark")
    make(data, tree)
    card = (data / "release" / "README.md").read_text()
    assert "SIMULATED" not in card
    assert "simulated" not in card
    assert "Not measured: no benchmark was run" in card
    assert "CC \\| BY # not a heading" in card


def test_an_interval_in_words() -> None:
    assert interval({"mean": 0.8123, "low": 0.79, "high": 0.8341}) == "0.812 [0.790, 0.834]"
    assert interval({"difference": -0.0001, "low": -0.02, "high": 0.0}, 3, "+", "difference") == "+0.000 [-0.020, +0.000]"
    assert interval({"mean": 2.5, "low": None, "high": None}, 1) == "2.5"
    assert interval({"mean": None, "low": None, "high": None}) == interval(None) == "n/a"
    assert [p_value(p) for p in (None, 0.0004, 0.03)] == ["n/a", "< 0.001", "0.030"]


def test_limits_of_a_threshold() -> None:
    def limits(threshold: str) -> list[float]:
        return FilterAccount("f", (Decision("a", "f", True, 1.0, threshold, ""),)).limits

    assert limits("86.123..97.900") == [86.123, 97.9]
    assert limits(">= 0.62") == [0.62]
    assert limits("-1.5..-0.25") == [-1.5, -0.25]
    assert limits("< 1e-05") == [1e-5]
    assert limits("none") == []


def test_a_changelog_says_what_the_files_say(made: tuple[Path, Params]) -> None:
    data, _ = made
    text = changelog(data / "release", data / "benchmark")
    said = "tiny-wires v1\n\n7 clips released of 10 sampled: 3 dropped by the filters, 0 withheld as near copies; "
    assert text.startswith(said)
    assert f"made by sfvd, checkpoint {'c' * 32}\n" in text
    audit = read_json(data / "release" / "release.json")["audit"]
    assert f"near copies of training clips among 7 accepted: {audit['copies']}, {100 * audit['value']:.1f} % [95 % CI " in text
    outcome = read_benchmark(data / "benchmark")
    assert outcome is not None and f"\n{outcome.sentence}\n" in text
    assert f"Dice by network and training data, mean [95 % CI over {outcome.counts['patients']} held-out patients]:\n" in text
    for network, arms in outcome.metrics.items():
        for arm, cells in arms.items():
            assert f"\n  {network} {arm}: {interval(cells['dice'])}\n" in text
    assert "\nagainst" not in text


def test_a_changelog_counts_clips_by_name_and_pixels(made: tuple[Path, Params], tmp_path: Path) -> None:
    data, _ = made
    rows = read_table(data / "release" / "manifest.parquet", ReleasedClip)
    older = [rows[0], replace(rows[1], digest="0" * 32), *(replace(rows[2], clip_id=f"{one:032x}") for one in range(3))]
    write_table(tmp_path / "manifest.parquet", older, ReleasedClip)
    text = changelog(data / "release", data / "nowhere", ("tiny-wires-v0", tmp_path / "manifest.parquet"))
    assert "\nagainst tiny-wires-v0: 6 clips added, 4 dropped, 1 in both\n" in text
    assert "Dice" not in text


@pytest.mark.parametrize(("withheld", "end"), [(2, "]\n"), (0, "]; released all the same, as audit.refuse: false asked\n")])
def test_a_changelog_says_what_became_of_near_copies(
    made: tuple[Path, Params], tmp_path: Path, withheld: int, end: str
) -> None:
    data, _ = made
    facts = read_json(data / "release" / "release.json")
    facts["audit"] |= {"copies": 2, "withheld": withheld, "value": 0.25, "low": 0.0625, "high": 0.5}
    write_json(tmp_path / "release.json", facts)
    (tmp_path / "manifest.parquet").symlink_to(data / "release" / "manifest.parquet")
    text = changelog(tmp_path, data / "benchmark")
    assert f"{3 - withheld} dropped by the filters, {withheld} withheld" in text
    assert "accepted: 2, 25.0 % [95 % CI 6.2 % to 50.0 %" + end in text
