"""Repeated random splits: which are planned, what is pooled, and the closed form of the corrected test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from tiny_line import params as tiny_params

from tasks.params import BenchmarkParams, Params, RepeatParams
from tasks.repeats import Repeat, finish, is_done, plan_repeats, pool, write_params
from tasks.repeats_page import repeats_page
from tasks.statistics import resplit_mean
from tasks.tables import read_json, write_json

METRICS = ("accuracy", "balanced_accuracy", "f1")


def study(seeds: list[int] | None = None, shares: list[float] | None = None) -> Params:
    tree = tiny_params()
    train = {"steps": 1, "batch_size": 1}
    benchmark = BenchmarkParams.model_validate({
        "kind": "classification", "baseline": "real", "learned": 0.6, "seeds": [0],
        "arms": {"real": {"real": True}, "joint": {"real": True, "synthetic": "sfvd"}},
        "networks": {name: {"kind": "c3d", "train": train} for name in ("good", "idle")}})
    repeats = RepeatParams(seeds=seeds or [0, 1, 2], train=shares or [0.7])
    return tree.model_copy(update={"benchmark": benchmark, "repeats": repeats})


def write_repeat(folder: Path, values: dict[tuple[str, str], float], test: int = 3) -> None:
    """What a line leaves that pooling reads."""
    write_json(folder / "prepared" / "summary.json", {
        "labels": {"a": 5, "b": 5}, "splits": {name: {"patients": patients, "clips": 2 * patients}
                                               for name, patients in (("train", 7), ("test", test))}})
    metrics: dict[str, Any] = {"counts": {}}
    for (network, arm), value in values.items():
        metrics.setdefault(network, {})[arm] = {name: {"mean": value, "low": None, "high": None} for name in METRICS}
    write_json(folder / "benchmark" / "metrics.json", metrics)
    write_json(folder / "benchmark" / "comparisons.json", [
        {"network": network, "arm": "joint", "baseline": "real", "metric": name}
        for network in ("good", "idle") for name in METRICS])
    write_json(folder / "benchmark" / "verdict.json", {"sentence": ""})
    apart = {"pixels": {"samples": 0.05, "reconstructions": 0.002, "difference": 0.048, "excludes_0": True}}
    margin = {"margin": 10 * values["good", "real"], "excludes_0": values["good", "real"] > 0.7}
    write_json(folder / "control" / "sfvd" / "animation.json", {
        "reconstruction": {"psnr": margin}, "diversity": apart})
    (folder / "params.yaml").write_text("seed: 0\n")
    (folder / "prepared" / "manifest.parquet").write_bytes(b"clips")
    finish(folder)


def test_without_shared_patients_it_is_students_t_test() -> None:
    values = [0.1, 0.3, -0.05, 0.2]
    plain = ttest_1samp(values, 0)
    found = resplit_mean(values, 0.0)
    interval = plain.confidence_interval()
    assert (found.mean, found.p) == pytest.approx((np.mean(values), plain.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=8), st.floats(0.1, 3))
def test_shared_patients_widen_the_interval_by_the_published_factor(values: list[float], ratio: float) -> None:
    alone, shared = resplit_mean(values, 0.0), resplit_mean(values, ratio)
    assert shared.high - shared.mean == pytest.approx((alone.high - alone.mean) * np.sqrt(1 + len(values) * ratio), abs=1e-9)
    assert shared.p >= alone.p - 1e-12 and resplit_mean([-value for value in values], ratio).p == pytest.approx(shared.p)


def test_one_split_is_refused() -> None:
    with pytest.raises(ValueError, match="1 split has no spread"):
        resplit_mean([0.1], 1.0)


def test_seeds_come_whole_and_names_choose(tmp_path: Path) -> None:
    tree = study(shares=[0.7, 0.3])
    names = [one.name for one in plan_repeats(tree)]
    assert names[:3] == ["train_0.7_seed_0", "train_0.3_seed_0", "train_0.7_seed_1"] and len(names) == 6
    assert plan_repeats(tree, ["train_0.3_seed_1"]) == [Repeat(0.3, 1)]
    with pytest.raises(ValueError, match=r"train_0\.4_seed_0: not planned; choose among train_0\.7_seed_0"):
        plan_repeats(tree, ["train_0.4_seed_0"])
    with pytest.raises(ValueError, match="no such section"):
        plan_repeats(tree.model_copy(update={"repeats": None}))


def test_a_repeat_differs_in_seed_and_split_alone(tmp_path: Path) -> None:
    source = tmp_path / "params.yaml"
    split = {"train": 0.6, "val": 0.1, "test": 0.3}
    given = {"seed": 0, "dataset": {"name": "x", "split": split}, "repeats": {"seeds": [0, 4]}}
    source.write_text(yaml.safe_dump(given))
    written = yaml.safe_load(write_params(source, Repeat(0.5, 4), tmp_path / "one").read_text())
    assert written == {"seed": 4, "dataset": {"name": "x", "split": {"train": 0.5, "val": 0.1, "test": 0.4}}}


def test_other_clips_or_parameters_undo_a_repeat(tmp_path: Path) -> None:
    write_repeat(tmp_path, {("good", "real"): 0.5})
    assert is_done(tmp_path) and not is_done(tmp_path / "elsewhere")
    (tmp_path / "params.yaml").write_text("seed: 0\nengine: {kind: dask}\n")
    assert is_done(tmp_path)  # no result depends on where the work was done
    (tmp_path / "prepared" / "manifest.parquet").write_bytes(b"other clips")
    assert not is_done(tmp_path)
    finish(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert not is_done(tmp_path)


def test_arms_are_compared_split_by_split_over_networks_that_learned(tmp_path: Path) -> None:
    """Splits differ by far more than arms do; the gain within each is what counts."""
    tree, base, gain = study(), [0.62, 0.9, 0.75], [0.05, 0.06, 0.04]
    for seed, (real, more) in enumerate(zip(base, gain, strict=True)):
        write_repeat(tmp_path / f"train_0.7_seed_{seed}", {("good", "real"): real, ("good", "joint"): real + more,
                                                           ("idle", "real"): 0.5, ("idle", "joint"): 0.1})
    found = pool(tree, tmp_path)["0.7"]
    assert found == read_json(tmp_path / "repeats.json")["0.7"] and found["learned"] == ["good"]
    assert [one["train_patients"] for one in found["splits"]] == [7, 7, 7]
    pooled = next(one for one in found["comparisons"] if (one["network"], one["metric"]) == ("pooled", "balanced_accuracy"))
    expected = resplit_mean(gain, 3 / 7)
    assert (pooled["difference"], pooled["low"], pooled["p"]) == pytest.approx((0.05, expected.low, expected.p))
    assert pooled["p_holm"] == pytest.approx(expected.p) and pooled["verdict"] == "significant gain"
    of_network = [one for one in found["comparisons"] if one["metric"] == "f1" and one["network"] != "pooled"]
    assert all(one["p_holm"] >= one["p"] for one in of_network) and len(of_network) == 2
    assert found["means"]["good"]["real"]["f1"]["values"] == base
    assert found["verdict"].startswith("Synthetic clips helped: the best such arm, joint")
    assert "3 of 3 splits" in found["verdict"]
    of_set = found["animation"]["sfvd"]
    assert of_set["margin"]["values"] == [10 * value for value in base] and set(found["animation"]) == {"sfvd"}
    assert (of_set["nearer"], of_set["more_varied"]) == (2, 3)
    assert (of_set["samples"]["low"], of_set["samples"]["high"]) == pytest.approx((0.05, 0.05))
    page = repeats_page(tree, {"0.7": found}, tmp_path).read_text()
    assert "samples apart" in page
    assert "Synthetic clips helped" in page and page.count("<svg") == 6 and "Nadeau and Bengio" in page
    assert repeats_page(tree, {"0.7": found}, tmp_path).read_text() == page


def test_a_missing_repeat_is_named(tmp_path: Path) -> None:
    write_repeat(tmp_path / "train_0.7_seed_0", {("good", "real"): 0.5})
    with pytest.raises(ValueError, match=r"2 of 3 repeats are missing, the first is train_0\.7_seed_1"):
        pool(study(), tmp_path)


@pytest.mark.parametrize(("change", "message"), [
    ({"seeds": [0], "train": [0.5]}, "at least 2"), ({"seeds": [0, 0], "train": [0.5]}, "names one twice"),
    ({"seeds": [0, 1], "train": []}, "at least 1")])
def test_a_wrong_section_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepeatParams.model_validate(change)
