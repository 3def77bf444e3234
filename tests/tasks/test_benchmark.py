"""Tiny stores, real networks: runs are whole or done again, leaks are refused, dropped clips stay out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.trainer import TrainParams
from tasks.benchmark import plan_runs, run_one, summarise
from tasks.benchmarks import Run
from tasks.params import ArmParams, BenchmarkParams, NetworkParams
from tasks.records import ClipRecord, Decision, EvaluationRecord, ProvenanceRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_table, write_json, write_table

FRAMES, SIDE = 4, 16
TRAINED, TESTED, FAKES = 6, 6, 5
NETWORK = NetworkParams(kind="dynunet", dims=3, filters=[4, 8, 8], train=TrainParams(steps=6, batch_size=2, learning_rate=5e-3))
REAL = ArmParams(real=True, geometric=True)
MIXED = ArmParams(real=True, geometric=True, synthetic="set")


def squares(count: int, seed: int) -> dict[str, np.ndarray]:
    """Clips of a bright square on noise, drifting one pixel a frame; the mask is the square."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, FRAMES, SIDE, SIDE), np.uint8)
    for mask, (top, left) in zip(masks, rng.integers(0, SIDE - 6 - FRAMES, (count, 2)), strict=True):
        for frame in range(FRAMES):
            mask[frame, top + frame : top + frame + 6, left : left + 6] = 1
    frames = rng.integers(0, 80, masks.shape) + 150 * masks.astype(int)
    return {"frames": frames.astype(np.uint8)[..., None], "masks": masks}


def write_store(path: Path, ids: list[str], arrays: dict[str, np.ndarray]) -> None:
    specs = {name: ArraySpec(array.shape[1:], "uint8") for name, array in arrays.items()}
    store = ClipStore.create(path, specs, shard_clips=4, fingerprint="test")
    for shard, start in enumerate(range(0, len(ids), 4)):
        store.write_shard(shard, ids[start : start + 4], {name: array[start : start + 4] for name, array in arrays.items()})
    store.finish(len(ids))


@dataclass(frozen=True)
class Factory:
    """Folders of a prepared data set and one synthetic set, of which the chain dropped the first clip."""

    root: Path

    def run(self, run: Run, benchmark: BenchmarkParams) -> dict[str, Any]:
        return run_one(run, benchmark, self.root / "prepared", self.root / "clips", self.root / "decisions", self.out)

    @property
    def out(self) -> Path:
        return self.root / "benchmark"

    def edit(self, path: str, row: type, change: Callable[[list[Any]], list[Any]]) -> None:
        write_table(self.root / path, change(read_table(self.root / path, row)), row)


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    arrays = squares(TRAINED + TESTED, seed=0)
    arrays["masks"][0] = 255  # an unannotated training clip
    ids = [f"real{number:02}" for number in range(TRAINED + TESTED)]
    write_store(tmp_path / "prepared/clips.zarr", ids, arrays)
    manifest = [
        ClipRecord(clip_id, f"p{number // 2}", "0" * 64, 0, 1, None, "", annotated=number > 0, group=number // 2,
                   split="train" if number < TRAINED else "test")
        for number, clip_id in enumerate(ids)
    ]
    write_table(tmp_path / "prepared/manifest.parquet", manifest, ClipRecord)
    write_json(tmp_path / "prepared/summary.json", {"classes": ["square"]})
    fakes = [f"fake{number}" for number in range(FAKES)]
    write_store(tmp_path / "clips/set/clips.zarr", fakes, squares(FAKES, seed=1))
    made = [ProvenanceRecord(clip_id, None, "", "", "sfvd", "", f"c{number}", ["p0", "p1"], 0, number, "{}", "{}", "")
            for number, clip_id in enumerate(fakes)]
    write_table(tmp_path / "clips/set/provenance.parquet", made, ProvenanceRecord)
    kept = [Decision(clip_id, "agreement", clip_id != "fake0", 0.5, ">= 0.4", "") for clip_id in fakes]
    (tmp_path / "decisions/set").mkdir(parents=True)
    write_table(tmp_path / "decisions/set/decisions.parquet", kept, Decision)
    return Factory(tmp_path)


def benchmark_of(arms: dict[str, ArmParams], seeds: tuple[int, ...] = (0, 1),
                 network: NetworkParams = NETWORK) -> BenchmarkParams:
    return BenchmarkParams(arms=arms, baseline=next(iter(arms)), networks={"dyn": network}, seeds=list(seeds), bootstrap=200)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_whole_benchmark(factory: Factory) -> None:
    benchmark = benchmark_of({"real_geometric": REAL, "mixed": MIXED})
    runs = plan_runs(benchmark)
    assert runs == [Run(arm, "dyn", seed) for seed in (0, 1) for arm in ("real_geometric", "mixed")]
    facts = [factory.run(run, benchmark) for run in runs]
    assert [fact["synthetic_clips"] for fact in facts] == [0, FAKES - 1] * 2
    assert {fact["real_clips"] for fact in facts} == {TRAINED - 1} and {fact["test_clips"] for fact in facts} == {TESTED}
    metrics = summarise(benchmark, factory.out)

    rows = read_table(factory.out / "runs.parquet", EvaluationRecord)
    assert len(rows) == len(runs) * TESTED * 2
    assert {row.patient for row in rows} == {"p3", "p4", "p5"} and {row.label for row in rows} == {"square", "mean"}
    dice = [row.dice for row in rows if (row.arm, row.label) == ("mixed", "mean")]
    assert metrics["dyn"]["mixed"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert metrics["counts"] == {"patients": 3, "clips": TESTED, "seeds": 2, "networks": 1, "arms": 2}
    for name in ("metrics", "comparisons", "verdict"):
        json.loads((factory.out / f"{name}.json").read_text(), parse_constant=lambda word: pytest.fail(f"JSON has no {word}"))
    assert json.loads((factory.out / "metrics.json").read_text()) == metrics
    curves = (factory.out / "curves.csv").read_text().splitlines()
    assert curves[0] == "arm,network,seed,step,loss" and len(curves) == 1 + len(runs) * NETWORK.train.steps

    before = contents(factory.out)
    for path in factory.out.rglob("*.json"):  # as if everything had been lost: the same bytes come again
        path.unlink()
    for run in runs:
        factory.run(run, benchmark)
    summarise(benchmark, factory.out)
    assert contents(factory.out) == before


def test_a_network_learns_and_every_schedule_takes_equal_steps(factory: Factory) -> None:
    longer = NETWORK.model_copy(update={"train": TrainParams(steps=80, batch_size=2, learning_rate=5e-3)})
    arms = {"real": ArmParams(real=True), "synthetic": ArmParams(synthetic="set"),
            "finetuned": ArmParams(real=True, synthetic="set", schedule="finetuned")}
    benchmark = benchmark_of(arms, seeds=(0,), network=longer)
    for run in plan_runs(benchmark):
        assert factory.run(run, benchmark)["dice"] > 0.85, run
        assert len(json.loads((factory.out / f"runs/{run.arm}/dyn/0.json").read_text())["losses"]) == 80


def test_arms_start_from_the_same_weights(factory: Factory) -> None:
    """With a learning rate of nearly 0 two arms of one seed are one network, and two seeds are not."""
    still = NETWORK.model_copy(update={"train": TrainParams(steps=1, batch_size=2, learning_rate=1e-12)})
    benchmark = benchmark_of({"real": ArmParams(real=True), "synthetic": ArmParams(synthetic="set")}, network=still)
    for run in plan_runs(benchmark):
        factory.run(run, benchmark)
    tables = {run: factory.out / f"runs/{run.arm}/dyn/{run.seed}.parquet" for run in plan_runs(benchmark)}
    scores = {run: [row.dice for row in read_table(table, EvaluationRecord)] for run, table in tables.items()}
    assert scores[Run("real", "dyn", 0)] == scores[Run("synthetic", "dyn", 0)] != scores[Run("real", "dyn", 1)]


def test_finished_runs_are_skipped_torn_and_stale_ones_made_again(factory: Factory) -> None:
    benchmark = benchmark_of({"mixed": MIXED}, seeds=(0,))
    (run,) = plan_runs(benchmark)
    factory.run(run, benchmark)
    rows, record = factory.out / "runs/mixed/dyn/0.parquet", factory.out / "runs/mixed/dyn/0.json"
    first = contents(factory.out)

    def made_again() -> bool:
        stamps = rows.stat().st_mtime_ns, record.stat().st_mtime_ns
        factory.run(run, benchmark)
        return (rows.stat().st_mtime_ns, record.stat().st_mtime_ns) != stamps

    assert not made_again()
    rows.write_bytes(rows.read_bytes()[:-1])  # torn rows under a whole record
    assert made_again() and contents(factory.out) == first
    record.write_text(record.read_text().replace("0.", "1.", 1))  # a record that somebody changed
    assert made_again() and contents(factory.out) == first
    changed = benchmark.model_copy(update={"distance_on": "skeleton"})
    factory.run(run, changed)  # a whole record of other parameters
    assert made_again() and contents(factory.out) == first
    factory.edit("decisions/set/decisions.parquet", Decision, lambda rows: [replace(row, keep=True) for row in rows])
    assert made_again() and contents(factory.out) != first


def test_adding_an_arm_keeps_the_runs_there_are_and_dropping_one_removes_them(factory: Factory) -> None:
    small = benchmark_of({"real": REAL}, seeds=(0,))
    grown = benchmark_of({"real": REAL, "mixed": MIXED}, seeds=(0,))
    factory.run(Run("real", "dyn", 0), small)
    stamp = (factory.out / "runs/real/dyn/0.parquet").stat().st_mtime_ns
    with pytest.raises(ValueError, match="1 of 2 runs are missing"):
        summarise(grown, factory.out)
    for run in plan_runs(grown):
        factory.run(run, grown)
    assert (factory.out / "runs/real/dyn/0.parquet").stat().st_mtime_ns == stamp
    summarise(grown, factory.out)
    summarise(small, factory.out)
    assert {str(path.relative_to(factory.out / "runs")) for path in (factory.out / "runs").rglob("*")} == {
        "real", "real/dyn", "real/dyn/0.parquet", "real/dyn/0.json"}


def leak_patient(rows: list[ClipRecord]) -> list[ClipRecord]:
    return [replace(row, patient="p5") if row.clip_id == "real00" else row for row in rows]


def leak_group(rows: list[ClipRecord]) -> list[ClipRecord]:
    return [replace(row, group=0) for row in rows]


def leak_mask(rows: list[ProvenanceRecord]) -> list[ProvenanceRecord]:
    return [replace(row, patients=["p0", "p4"]) if row.clip_id == "fake0" else row for row in rows]


@pytest.mark.parametrize(
    ("path", "row", "change", "message"),
    [
        ("prepared/manifest.parquet", ClipRecord, leak_patient, "training and test patients share p5"),
        ("prepared/manifest.parquet", ClipRecord, leak_group, "near-duplicate groups of training and test clips share 0"),
        ("clips/set/provenance.parquet", ProvenanceRecord, leak_mask, "patients behind the masks of .* share p4"),
    ],
)
def test_a_leak_is_refused(factory: Factory, path: str, row: type, change: Any, message: str) -> None:
    factory.edit(path, row, change)
    benchmark = benchmark_of({"mixed": MIXED})
    with pytest.raises(ValueError, match=message):
        factory.run(Run("mixed", "dyn", 0), benchmark)
    assert not (factory.out / "runs").exists()


def test_dropped_clips_stay_out_unless_asked_for(factory: Factory) -> None:
    arms = {"kept": ArmParams(synthetic="set"), "all": ArmParams(synthetic="set", filtered=False)}
    benchmark = benchmark_of(arms, seeds=(0,))
    assert [factory.run(Run(arm, "dyn", 0), benchmark)["synthetic_clips"] for arm in arms] == [FAKES - 1, FAKES]
    factory.edit("decisions/set/decisions.parquet", Decision, lambda rows: rows[1:])
    with pytest.raises(ValueError, match="1 of 5 sampled clips have none"):
        factory.run(Run("kept", "dyn", 0), benchmark)


def test_an_arm_the_chain_emptied_is_named_and_the_others_stand(factory: Factory) -> None:
    factory.edit("decisions/set/decisions.parquet", Decision, lambda rows: [replace(row, keep=False) for row in rows])
    benchmark = benchmark_of({"real": REAL, "all": ArmParams(synthetic="set", filtered=False), "kept": MIXED}, seeds=(0,))
    facts = {run.arm: factory.run(run, benchmark) for run in plan_runs(benchmark)}
    assert facts["kept"]["synthetic_clips"] == 0 and facts["kept"]["dice"] is None
    metrics = summarise(benchmark.model_copy(update={"learned": 0.0}), factory.out)
    assert set(metrics["dyn"]) == {"real", "all"}
    sentence = json.loads((factory.out / "verdict.json").read_text())["sentence"]
    assert "the best such arm, all," in sentence and sentence.endswith("kept no clip for them: kept.")
    assert facts["kept"] == factory.run(Run("kept", "dyn", 0), benchmark)  # nothing to do is done once

    emptied = benchmark_of({"real": REAL, "kept": MIXED}, seeds=(0,))
    summarise(emptied, factory.out)
    assert json.loads((factory.out / "verdict.json").read_text()) == {
        "sentence": "The chain kept no clip for kept, so nothing can be said about their use.", "helped": None}
    with pytest.raises(ValueError, match="kept no clip for kept, so nothing can be compared"):
        summarise(benchmark_of({"kept": MIXED}, seeds=(0,)), factory.out)


def test_nothing_to_train_on_or_to_test(factory: Factory) -> None:
    benchmark = benchmark_of({"real": REAL}, seeds=(0,))
    manifest = "prepared/manifest.parquet"
    factory.edit(manifest, ClipRecord, lambda rows: [replace(row, annotated=row.split == "test") for row in rows])
    with pytest.raises(ValueError, match="training split has no annotated clip"):
        factory.run(Run("real", "dyn", 0), benchmark)
    factory.edit(manifest, ClipRecord, lambda rows: [replace(row, annotated=row.split == "train") for row in rows])
    with pytest.raises(ValueError, match="test split has no annotated clip"):
        factory.run(Run("real", "dyn", 0), benchmark)


def test_names_that_metrics_json_gives_to_something_else() -> None:
    with pytest.raises(ValueError, match="counts has a meaning of its own"):
        plan_runs(benchmark_of({"real": REAL}).model_copy(update={"networks": {"counts": NETWORK}}))
