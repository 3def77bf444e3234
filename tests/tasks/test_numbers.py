"""Numbers of a run: which a file's objects hold, whose interval `low` and `high` are, and what `dvc metrics` is given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_line

from tasks.numbers import Measure, brief, counts, flat, measures
from tasks.records import AuditRecord
from tasks.report import report
from tasks.tables import read_json, read_table, write_json, write_table

SETS = ("sfvd", "no_consistency")
CELL: dict[str, Any] = {"value": 0.5, "low": 0.4, "high": 0.625, "what": "a number", "direction": "lower is nearer"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("numbers") / "data"
    tiny_line.build(data, tiny_line.params())
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """Without the audit, so that only what a test writes is there."""
    shutil.copytree(made, tmp_path / "data", ignore=shutil.ignore_patterns("audit"))
    return tmp_path / "data"


def test_counts_through_the_line(made: Path) -> None:
    found = counts(made, SETS)
    whole = {"sources": 13, "sources.used": 12, "quarantined": 1, "clips": 12, "conditions": 5, "clips.train": 6,
             "clips.val": 2, "clips.test": 4, "patients.train": 6, "patients.val": 2, "patients.test": 4}
    of_sets = {f"{what}.{name}": number for name in SETS for what, number in (("sampled", 10), ("kept", 7))}
    dropped = {f"dropped.{name}.{which}": number for name in SETS for which, number in (("similarity", 2), ("agreement", 1))}
    assert found == whole | of_sets | dropped


def test_a_set_that_is_no_longer_asked_for_is_left_out(made: Path) -> None:
    assert not [name for name in counts(made, ["sfvd", "planned"]) if "no_consistency" in name or "planned" in name]


def test_an_interval_belongs_to_the_estimate_it_was_made_for(data: Path) -> None:
    """The advantage over chance where there is one, a filter's gain; and the range of real clips is nobody's, neither as
    a band nor as runs wrote it before."""
    label = {"value": 0.9, "chance": 0.5, "advantage": 0.4, "low": 0.3, "high": 0.5, "clips": 10, "what": "asked class",
             "filters": {"agreement": {"before": 0.9, "after": 1.0, "gain": 0.1, "low": 0.0, "high": 0.2, "kept": 7}}}
    write_json(data / "control" / "sfvd" / "control.json", {"label": label})
    before = {**CELL, "inside": 0.8, "direction": ""}
    write_json(data / "control" / "sfvd" / "appearance.json", {"contrast": before, "change": {**before, "band": [0.1, 0.2]}})
    found = measures(data, SETS)
    assert found == {
        ("control", "sfvd", "label", "advantage"): Measure(0.4, 0.3, 0.5, "", "asked class"),
        ("control", "sfvd", "label", "value"): Measure(0.9, None, None, "", "asked class"),
        ("control", "sfvd", "label", "filters", "agreement", "gain"): Measure(0.1, 0.0, 0.2),
        ("appearance", "sfvd", "contrast", "value"): Measure(0.5, None, None, "", "a number"),
        ("appearance", "sfvd", "contrast", "inside"): Measure(0.8, None, None, "", "a number"),
        ("appearance", "sfvd", "change", "value"): Measure(0.5, 0.4, 0.625, "", "a number"),
        ("appearance", "sfvd", "change", "inside"): Measure(0.8, None, None, "", "a number"),
    }


def test_a_file_nobody_told_of_appears_by_itself(data: Path) -> None:
    write_json(data / "control" / "sfvd" / "invented.json", {"new": CELL, "text": "no number", "list": [CELL], "flag": True})
    found = measures(data, SETS)
    assert found == {("invented", "sfvd", "new", "value"): Measure(0.5, 0.4, 0.625, "lower is nearer", "a number")}


def test_dvc_is_given_numbers_alone_under_short_names(data: Path) -> None:
    seen = {"clips": {"training": 30}, "frames": 4, "metrics": {
        "kid": {**CELL, "span": [0, None], "flags": ["few"], "excludes_0": True},
        "frechet": {**CELL, "low": None, "high": None}, "recall": {**CELL, "value": None, "low": None, "high": None}}}
    write_json(data / "control" / "sfvd" / "distribution.json", {"random3d (seed 0; 64 px)": seen})
    found = {name: number for name, number in flat(data, SETS, 7).items() if not name.startswith("counts.")}
    kid = "distribution.sfvd.random3d.kid.value"
    assert found == {kid: 0.5, f"{kid}.low": 0.4, f"{kid}.high": 0.625, "distribution.sfvd.random3d.frechet.value": 0.5}
    assert flat(data, SETS, 7)["counts.released"] == 7 and flat(data, SETS, 7)["counts.kept.sfvd"] == 7


def test_short_names_stay_apart() -> None:
    names = [("d", "net (64 px)", "kid"), ("d", "net (112 px)", "kid"), ("d", "other (64 px)", "kid")]
    assert list(brief(names).values()) == ["d.net (64 px).kid", "d.net (112 px).kid", "d.other.kid"]


def test_an_audit_counts_while_it_is_of_the_clips_there_are(data: Path, made: Path) -> None:
    shutil.copytree(made / "audit", data / "audit")
    share = read_json(data / "audit" / "sfvd" / "audit.json")["share"]
    assert measures(data, SETS)["audit", "sfvd", "share", "value"] == Measure(share["value"], share["low"], share["high"])
    rows = read_table(data / "audit" / "sfvd" / "audit.parquet", AuditRecord)
    write_table(data / "audit" / "sfvd" / "audit.parquet", rows[1:], AuditRecord)
    assert measures(data, SETS) == {}


def test_the_report_writes_them(data: Path) -> None:
    tree = tiny_line.params()
    write_json(data / "control" / "sfvd" / "invented.json", {"new": CELL})
    report(tree, data, data / "reports")
    found = read_json(data / "reports" / "metrics.json")
    assert found == flat(data, list(tree.samples), 7)
    assert all(isinstance(number, int | float) and not isinstance(number, bool) for number in found.values())

