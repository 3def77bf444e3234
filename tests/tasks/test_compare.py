"""Two runs beside each other: changes made by hand, whose difference, interval and p are known, are found; and nothing else."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_line
import yaml
from scipy.stats import binomtest, wilcoxon
from test_report import Page
from typer.testing import CliRunner

from flows.__main__ import app
from models.trainer import TrainParams
from tasks.class_comparisons import conclude
from tasks.compare import Comparison, compare
from tasks.compare_benchmarks import ALONE, SAME, UNTESTED, Changed
from tasks.compare_page import page, text
from tasks.comparisons import summaries
from tasks.params import ArmParams, BenchmarkParams, ClassifierParams
from tasks.records import ClassificationRecord, EvaluationRecord
from tasks.release import ReleasedClip, release
from tasks.report import report
from tasks.tables import read_json, read_table, write_json, write_table

Two = tuple[Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, tree = tmp_path_factory.mktemp("compare") / "data", tiny_line.params()
    tiny_line.build(data, tree)
    report(tree, data, data / "reports")
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    release(tree.release, tree.dataset, tree.audit, *folders)
    return data


@pytest.fixture
def two(made: Path, tmp_path: Path) -> Two:
    """A run and a copy of it, which a test then changes; pixels are not needed."""
    without = shutil.ignore_patterns("*.zarr", "checkpoints")
    return (shutil.copytree(made, tmp_path / "a", ignore=without), shutil.copytree(made, tmp_path / "b", ignore=without))


def rows_of(run: Path) -> list[EvaluationRecord]:
    return read_table(run / "benchmark" / "runs.parquet", EvaluationRecord)


def rewrite(run: Path, change: Callable[[EvaluationRecord], EvaluationRecord | None]) -> None:
    """Change or leave out rows of the benchmark, with its metrics as its stage would write them."""
    rows = [found for row in rows_of(run) if (found := change(row))]
    write_table(run / "benchmark" / "runs.parquet", rows, EvaluationRecord)
    write_json(run / "benchmark" / "metrics.json", summaries(rows, tiny_line.params().benchmark))


def row(found: Comparison, network: str, arm: str, metric: str = "dice") -> Changed:
    (one,) = (one for one in found.benchmarks.rows if (one.network, one.arm, one.metric) == (network, arm, metric))
    return one


def test_equal_runs(two: Two) -> None:
    found = compare(*two)
    assert found.sentence == "Nothing changed: parameters, counts, benchmark, numbers of sets and released clips are the same."
    assert (found.benchmarks.primary, found.benchmarks.patients) == ("dice", 12)
    assert found.params == found.counts == found.measures == found.limits == [] and found.equal > 0
    assert {one.verdict for one in found.benchmarks.rows} == {SAME}
    assert "Nothing changed" in text(found) and "0 added, 0 dropped, 7 in both" in text(found)


def test_a_gain_of_a_tenth_is_a_tenth(two: Two) -> None:
    """The interval of a constant has no width; the other arms are the same and not tested, so Holm is over two rows."""
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1) if one.arm == "mixed" else one)
    found = compare(*two)
    for network in ("vnet", "dynunet"):
        one = row(found, network, "mixed")
        assert one.verdict == "significant gain" and one.difference is not None
        assert [one.difference[name] for name in ("value", "low", "high")] == pytest.approx([0.1] * 3, abs=1e-12)
        assert one.difference["p_holm"] <= 2 * 0.003
        assert one.first and one.second and one.second["mean"] - one.first["mean"] == pytest.approx(0.1)
        assert row(found, network, "mixed", "hausdorff").verdict == "no significant difference"
    assert {one.verdict for one in found.benchmarks.rows if one.arm != "mixed"} == {SAME}
    assert found.sentence.startswith("Changed: 2 of 8 benchmark results; Dice got significantly better in 2, most for mixed on")
    assert "net (+0.100, 95 % CI +0.100 to +0.100, Holm-corrected p " in found.sentence
    assert found.sentence.endswith("(2 comparisons, 12 held-out patients).")
    back = compare(two[1], two[0])
    assert row(back, "vnet", "mixed").verdict == "significant loss"
    assert "Dice got significantly worse in 2, most for mixed on" in back.sentence and "net (-0.100" in back.sentence


def test_better_and_worse_are_both_said(two: Two) -> None:
    step = {("vnet", "mixed"): 0.1, ("dynunet", "real"): -0.2, ("vnet", "real"): -0.3}
    rewrite(two[1], lambda one: replace(one, dice=one.dice + step.get((one.network, one.arm), 0.0)))
    sentence = compare(*two).sentence
    assert "; Dice got significantly better for mixed on vnet (+0.100, " in sentence
    assert ") and significantly worse in 2, most for real on vnet (-0.300, " in sentence


def test_p_is_wilcoxons_over_patients_and_holms_over_rows(two: Two) -> None:
    change = dict(zip([f"test{n}" for n in range(12)], np.linspace(-0.021, 0.05, 12).round(4), strict=True))
    rewrite(two[1], lambda one: replace(one, dice=one.dice + change[one.patient] * (1 + (one.network == "vnet")))
            if one.arm == "mixed" else one)
    found = compare(*two)
    p = wilcoxon(list(change.values())).pvalue  # twice the change has the same ranks
    for network, times in (("dynunet", 1), ("vnet", 2)):
        one = row(found, network, "mixed").difference
        assert one is not None and one["value"] == pytest.approx(times * np.mean(list(change.values())))
        assert one["p_holm"] == pytest.approx(min(1, 2 * p))
        assert one["low"] < one["value"] < one["high"]


def test_no_significant_change_is_said(two: Two) -> None:
    flip = {f"test{n}": 0.01 * (-1) ** n for n in range(12)}
    rewrite(two[1], lambda one: replace(one, dice=one.dice + flip[one.patient]) if one.arm == "real" else one)
    assert "no significant change in Dice (2 comparisons, 12 held-out patients)" in compare(*two).sentence


def test_other_patients_are_not_tested(two: Two) -> None:
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1, clip_id=("new " * (one.patient != "test0")) + one.clip_id))
    found = compare(*two)
    assert all(one.difference is None and one.verdict == UNTESTED for one in found.benchmarks.rows)
    assert any("other held-out clips were tested (12 in A, 12 in B, 1 in both)" in one for one in found.limits)
    assert found.sentence.endswith("whether that is better or worse is not tested.")
    one = row(found, "vnet", "mixed")
    assert one.first and f"{one.first['mean']:.3f} [{one.first['low']:.3f}, {one.first['high']:.3f}]" in text(found)


def test_patients_of_another_name_are_no_pairs(two: Two) -> None:
    rewrite(two[1], lambda one: replace(one, patient="everyone"))
    assert "the same held-out clips are of other patients or classes, so no test is made" in compare(*two).limits


def test_only_seeds_that_both_have_are_paired(two: Two) -> None:
    """The seed that B lacks would pull the difference to -0.15 if it counted."""
    rewrite(two[0], lambda one: replace(one, dice=one.dice + (0.5 if one.seed == 2 else 0.0)))
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1) if one.seed == 1 else None)
    found = compare(*two)
    assert "differences are over the seeds that both have: 1" in found.limits
    difference = row(found, "vnet", "real").difference
    assert difference is not None and difference["value"] == pytest.approx(0.1)
    rewrite(two[1], lambda one: replace(one, seed=9))
    assert "the benchmarks have no seed in common, so no test is made" in compare(*two).limits


def test_arms_of_one_run_alone_stand_there(two: Two) -> None:
    rewrite(two[1], lambda one: None if one.arm == "mixed" else one)
    one = row(compare(*two), "vnet", "mixed")
    assert (one.second, one.verdict) == (None, ALONE) and one.first


def test_metrics_that_mean_something_else_are_not_tested(two: Two) -> None:
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1, g2re=one.g2re + 1))
    ask(two[1], {"benchmark": {"distance_on": "masks"}})
    found = compare(*two)
    assert row(found, "vnet", "real", "g2re").verdict == UNTESTED and row(found, "vnet", "real").difference
    assert "the benchmarks define g2re, hausdorff, r2ge otherwise, so they are not tested" in found.limits


def ask(run: Path, change: dict[str, Any]) -> None:
    file = run / "reports" / "params.yaml"
    tree = yaml.safe_load(file.read_text())
    for section, values in change.items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_parameters_that_differ(two: Two) -> None:
    ask(two[1], {"seed": 8, "conditions": {"count": 6, "new": "x"}})
    found = compare(*two)
    assert found.params == [("seed", 7, 8), ("conditions.count", 5, 6), ("conditions.new", "(absent)", "x")]
    assert found.sentence == ("Changed: 3 parameters (seed, conditions.count, conditions.new); no result of the benchmark "
                              "changed.")
    assert "  conditions.count: 5 -> 6" in text(found)
    (two[0] / "reports" / "params.yaml").unlink()
    found = compare(*two)
    assert found.params is None
    assert found.limits == ["the parameters of A are not known: it has no reports/params.yaml, which `cinefab report` writes"]
    assert found.sentence == "Nothing changed: counts, benchmark, numbers of sets and released clips are the same."


def test_released_clips_by_id(two: Two) -> None:
    file = two[1] / "release" / "manifest.parquet"
    rows = read_table(file, ReleasedClip)
    new = [replace(rows[0], digest="other"), *rows[2:], replace(rows[0], clip_id="new")]
    write_table(file, new, ReleasedClip)
    found = compare(*two).released
    assert found is not None
    assert (found.added, found.dropped, found.redrawn) == (["new"], [rows[1].clip_id], [rows[0].clip_id])
    assert len(found.common) == len(rows) - 1
    assert "released clips (1 added, 1 dropped, 1 with other pixels)" in compare(*two).sentence
    (two[1] / "release" / "release.json").unlink()  # withdrawn
    found_without = compare(*two)
    assert found_without.released is None and "B has no release" in found_without.limits
    assert ("released", 7, None) in found_without.counts


def test_counts_follow_the_tables(two: Two) -> None:
    summary = two[1] / "prepared" / "summary.json"
    write_json(summary, {**read_json(summary), "sources": 20})
    assert compare(*two).counts == [("sources", 13, 20)]


def cell(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "direction": "lower is nearer", "what": "a <b>new</b> measure"}


def test_numbers_of_sets_with_intervals(two: Two) -> None:
    for run, values in zip(two, ((0.5, 0.4, 0.6), (0.3, 0.2, 0.39)), strict=True):
        write_json(run / "control" / "sfvd" / "new.json",
                   {"apart": cell(*values), "across": cell(values[0], 0.1, 0.9), "alone": cell(values[0]), "same": cell(1.0)})
    write_json(two[1] / "control" / "no_consistency" / "new.json", {"only": cell(1.0)})
    found = {pair.short: pair for pair in compare(*two).measures}
    assert {name: pair.apart for name, pair in found.items()} == {
        "new.sfvd.apart.value": True, "new.sfvd.across.value": False, "new.sfvd.alone.value": False,
        "new.no_consistency.only.value": False}
    assert found["new.sfvd.apart.value"].difference == pytest.approx(-0.2)
    assert found["new.no_consistency.only.value"].first is None
    assert "4 numbers of sets (1 with intervals apart)" in compare(*two).sentence
    assert "0.5 [0.4, 0.6]  0.3 [0.2, 0.39]   -0.2  intervals apart" in text(compare(*two))


def test_another_extractor_is_another_number(two: Two) -> None:
    for run, size in zip(two, (64, 112), strict=True):
        write_json(run / "control" / "sfvd" / "distribution.json", {f"net ({size} px)": {"metrics": {"kid": cell(0.5)}}})
    assert [(pair.short, pair.difference) for pair in compare(*two).measures] == [
        ("distribution.sfvd.net (64 px).kid.value", None), ("distribution.sfvd.net (112 px).kid.value", None)]


def test_other_yardsticks_are_named(two: Two) -> None:
    critic = two[1] / "critics" / "look" / "checkpoint.json"
    write_json(critic, {**read_json(critic), "digest": "another"})
    assert compare(*two).limits == ["trained anew, and so other eyes: what critics measure (look)"]


def classified(run: Path, right: Callable[[str, int], bool], clips: int = 40) -> None:
    """A benchmark of two arms, in which a clip gets its own class where `right(arm, clip)`."""
    train = TrainParams(steps=10, batch_size=2)
    benchmark = BenchmarkParams(kind="classification", baseline="real", bootstrap=100, seeds=[0, 1],
                                arms={"real": ArmParams(real=True), "joint": ArmParams(real=True, synthetic="sfvd")},
                                networks={"c3d": ClassifierParams(kind="c3d", train=train)})
    rows = [ClassificationRecord(arm, "c3d", seed, f"clip{clip}", f"test{clip // 4}", ["idle", "move"][clip % 2],
                                 ["idle", "move"], [0.9, 0.1] if right(arm, clip) == (clip % 2 == 0) else [0.1, 0.9])
            for arm, seed, clip in itertools.product(benchmark.arms, (0, 1), range(clips))]
    found = conclude(rows, benchmark)
    for name in ("metrics", "comparisons", "verdict"):
        write_json(run / "benchmark" / f"{name}.json", getattr(found, name))
    write_table(run / "benchmark" / "runs.parquet", rows, ClassificationRecord)


def test_classification_in_closed_form(two: Two) -> None:
    """A calls 10 of 40 clips of five classes-balanced patients wrong, B none: +0.25, and McNemar's p is the sign test's."""
    wrong = [8 * patient + place for patient in range(5) for place in (0, 1)]
    classified(two[0], lambda arm, clip: arm == "real" or clip not in wrong)
    classified(two[1], lambda arm, clip: True)
    found = compare(*two)
    for metric in ("accuracy", "balanced_accuracy"):
        one = row(found, "c3d", "joint", metric)
        assert one.difference is not None and one.difference["value"] == pytest.approx(0.25)
        assert one.difference["p_holm"] == pytest.approx(binomtest(10, 10).pvalue) and one.verdict == "significant gain"
        assert row(found, "c3d", "real", metric).verdict == SAME
    assert "balanced accuracy got significantly better for joint on c3d (+0.250" in found.sentence
    assert "10 held-out patients" in found.sentence


def test_benchmarks_of_two_kinds_have_nothing_in_common(two: Two) -> None:
    classified(two[1], lambda arm, clip: True)
    found = compare(*two)
    assert found.limits == ["A has a benchmark of segmentation and B one of classification, which have nothing in common"]
    assert {one.verdict for one in found.benchmarks.rows} == {ALONE}
    assert "there are no two benchmarks to say whether that is better or worse" in found.sentence
    shutil.rmtree(two[0] / "benchmark")
    assert "A ran no benchmark" in compare(*two).limits


def test_a_folder_that_is_no_run(two: Two, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no run, it has no prepared/manifest.parquet and no prepared/summary.json"):
        compare(tmp_path / "nowhere", two[1])
    with pytest.raises(ValueError, match=r"v1: no run"):
        compare(two[0], tmp_path / "nowhere", ("data", "v1"))


def test_the_page_has_every_metric_and_nothing_outside(two: Two, tmp_path: Path) -> None:
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1) if one.arm == "mixed" else one)
    write_json(two[1] / "control" / "sfvd" / "new.json", {"hostile": cell(0.5, 0.4, 0.6)})
    ask(two[1], {"conditions": {"count": 6}})
    found = compare(*two, ("<i>a</i>", "b"))
    made = Page(page(found, tmp_path / "compare.html").read_text())
    assert found.sentence in made.text and "<i>a</i>" in made.text and "a <b>new</b> measure" in made.text
    for heading in ("Dice", "Hausdorff, px", "G2RE, px", "Sensitivity"):
        assert f"{heading} network arm A B B \u2212 A p" in made.text
    assert "+0.100 [+0.100, +0.100]" in made.text and "conditions.count 5 6" in made.text
    assert not any(tag in ("i", "b", "script", "link", "img") for tag, _ in made.tags)
    assert page(found, tmp_path / "again.html").read_bytes() == (tmp_path / "compare.html").read_bytes()


def test_the_terminal_shows_columns_that_stand_under_each_other(two: Two) -> None:
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1) if one.arm == "mixed" else one)
    lines = text(compare(*two)).splitlines()
    head = next(line for line in lines if line.lstrip().startswith("network"))
    body = lines[lines.index(head) + 1 : lines.index("Released clips") - 1]
    assert len(body) == 8 and {line[head.index("verdict") :] for line in body} == {"the same results", "significant gain"}


def test_the_command(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rewrite(two[1], lambda one: replace(one, dice=one.dice + 0.1) if one.arm == "mixed" else one)
    done = CliRunner().invoke(app, ["compare", str(two[0]), str(two[1]), "--out", "compare.html"])
    assert done.exit_code == 0, done.output
    assert "Dice got significantly better in 2, most for mixed on" in done.output
    assert done.output.splitlines()[-1] == str(tmp_path / "compare.html") and (tmp_path / "compare.html").exists()
    wrong = CliRunner().invoke(app, ["compare", "nowhere", str(two[1])])
    assert str(wrong.exception) == "nowhere: neither a folder nor a git revision of this repository"

