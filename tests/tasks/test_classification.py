"""The classification benchmark: real little classifiers on drifting squares, options that count, and planted statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from test_benchmark import Factory, contents, write_store

from models.clip import ClipBatch, Condition, MemoryClips
from models.seeding import derive_seed
from models.trainer import TrainParams
from tasks.arms import draw
from tasks.benchmark import plan_runs, summarise
from tasks.benchmarks import Run, classification
from tasks.benchmarks.classification import _Turns, real_rows
from tasks.class_comparisons import PRIMARY, conclude
from tasks.described import Described
from tasks.metrics.classification import mcnemar_exact
from tasks.params import ArmParams, BenchmarkParams, ClassifierParams, NetworkParams
from tasks.records import ClassificationRecord, ClipRecord, Decision, ProvenanceRecord
from tasks.statistics import holm, resamples
from tasks.tables import read_table, write_json, write_table

FRAMES, SIDE, TRAINED, TESTED, FAKES = 4, 16, 12, 8, 6
LABELS = ("down", "right")
NETWORK = ClassifierParams(kind="c3d", width=8, train=TrainParams(steps=60, batch_size=8, learning_rate=3e-3, ema_decay=0.9))
REAL = ArmParams(real=True)


def drifting(labels: list[str], seed: int) -> dict[str, np.ndarray]:
    """A bright square that drifts down or right over noise."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60, (len(labels), FRAMES, SIDE, SIDE, 1)).astype(np.uint8)
    for clip, label in zip(frames, labels, strict=True):
        top, left = rng.integers(0, 5, 2)
        for frame in range(FRAMES):
            y, x = (top + 2 * frame, left + 3) if label == "down" else (top + 3, left + 2 * frame)
            clip[frame, y : y + 5, x : x + 5] += 150
    return {"frames": frames, "masks": np.full(frames.shape[:4], 255, np.uint8)}


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    labels = [LABELS[row % 2] for row in range(TRAINED + TESTED)]
    ids = [f"real{row:02}" for row in range(TRAINED + TESTED)]
    write_store(tmp_path / "prepared/clips.zarr", ids, drifting(labels, 0))
    manifest = [ClipRecord(clip, f"p{row // 2}", "0", 0, 1, labels[row], "", False, row // 2,
                           "train" if row < TRAINED else "test") for row, clip in enumerate(ids)]
    write_table(tmp_path / "prepared/manifest.parquet", manifest, ClipRecord)
    write_json(tmp_path / "prepared/summary.json", {"classes": []})
    made = [LABELS[row % 2] for row in range(FAKES)]
    fakes = [f"fake{row}" for row in range(FAKES)]
    write_store(tmp_path / "clips/set/clips.zarr", fakes, drifting(made, 1))
    provenance = [ProvenanceRecord(clip, made[row], "", "", "g", "", f"c{row}", ["p0"], 0, row, "{}", "{}", "")
                  for row, clip in enumerate(fakes)]
    write_table(tmp_path / "clips/set/provenance.parquet", provenance, ProvenanceRecord)
    (tmp_path / "decisions/set").mkdir(parents=True)
    kept = [Decision(clip, "semantic", clip != "fake0", 0.5, "", "") for clip in fakes]
    write_table(tmp_path / "decisions/set/decisions.parquet", kept, Decision)
    return Factory(tmp_path)


def benchmark_of(arms: dict[str, ArmParams], seeds: tuple[int, ...] = (0,), **more: Any) -> BenchmarkParams:
    return BenchmarkParams(kind="classification", arms=arms, baseline=next(iter(arms)), networks={"c3d": NETWORK},
                           seeds=list(seeds), bootstrap=200, **more)


def test_the_three_paradigms_learn_and_are_written(factory: Factory) -> None:
    arms = {"real": REAL, "joint": ArmParams(real=True, synthetic="set"), "synthetic": ArmParams(synthetic="set"),
            "finetuned": ArmParams(real=True, synthetic="set", schedule="finetuned")}
    benchmark = benchmark_of(arms, learned=0.9)
    for run in plan_runs(benchmark):
        facts = factory.run(run, benchmark)
        assert facts[PRIMARY] > 0.85, run
        assert facts["synthetic_clips"] == (0 if run.arm == "real" else FAKES - 1) and facts["test_clips"] == TESTED
        assert len(json.loads((factory.out / f"runs/{run.arm}/c3d/0.json").read_text())["losses"]) == NETWORK.train.steps
    metrics = summarise(benchmark, factory.out)
    assert metrics["counts"] == {"patients": 4, "clips": TESTED, "seeds": 1, "networks": 1, "arms": 4}
    rows = read_table(factory.out / "runs.parquet", ClassificationRecord)
    own = [row for row in rows if row.arm == "real"]
    right = [row.classes[int(np.argmax(row.probabilities))] == row.truth for row in own]
    assert metrics["c3d"]["real"]["accuracy"]["mean"] == pytest.approx(np.mean(right))
    assert {"auroc", "f1", "one_vs_rest_accuracy", "sensitivity_down", "specificity_right"} <= set(metrics["c3d"]["real"])
    verdict = json.loads((factory.out / "verdict.json").read_text())
    assert "mean balanced accuracy of" in verdict["sentence"] and verdict["metric"] == PRIMARY
    before = contents(factory.out)
    summarise(benchmark, factory.out)
    assert contents(factory.out) == before


def test_wrong_labels_teach_the_opposite(factory: Factory) -> None:
    """The synthetic set's labels come from its provenance, and they are what is learned."""
    swap = {"down": "right", "right": "down"}
    factory.edit("clips/set/provenance.parquet", ProvenanceRecord,
                 lambda rows: [replace(row, label=swap[str(row.label)]) for row in rows])
    benchmark = benchmark_of({"synthetic": ArmParams(synthetic="set", filtered=False)})
    assert factory.run(Run("synthetic", "c3d", 0), benchmark)[PRIMARY] < 0.2


def test_arms_start_from_the_same_weights_and_take_equal_steps(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, torch.Tensor] = {}
    steps: Counter[str] = Counter()

    def fit(net: torch.nn.Module, loss: Any, params: TrainParams, *, phase: str, **_: Any) -> list[float]:
        arm, _, seed = phase.split()[:3]
        begun.setdefault(f"{arm} {seed}", torch.cat([one.detach().flatten() for one in net.parameters()]))
        steps[f"{arm} {seed}"] += params.steps
        return [0.0] * params.steps

    monkeypatch.setattr(classification, "fit", fit)
    arms = {"real": REAL, "finetuned": ArmParams(real=True, synthetic="set", schedule="finetuned")}
    benchmark = benchmark_of(arms, seeds=(0, 1))
    for run in plan_runs(benchmark):
        factory.run(run, benchmark)
    assert begun["real 0"].equal(begun["finetuned 0"]) and begun["real 1"].equal(begun["finetuned 1"])
    assert not begun["real 0"].equal(begun["real 1"]) and set(steps.values()) == {NETWORK.train.steps}


def test_another_network_learns_it_too(factory: Factory) -> None:
    network = ClassifierParams(kind="cnn_transformer", width=8, train=NETWORK.train.model_copy(update={"steps": 120}))
    benchmark = benchmark_of({"joint": ArmParams(real=True, synthetic="set")}).model_copy(update={"networks": {"t": network}})
    assert factory.run(Run("joint", "t", 0), benchmark)[PRIMARY] > 0.85


def test_an_arm_the_chain_emptied_is_named_and_the_others_stand(factory: Factory) -> None:
    factory.edit("decisions/set/decisions.parquet", Decision, lambda rows: [replace(row, keep=False) for row in rows])
    benchmark = benchmark_of({"real": REAL, "all": ArmParams(synthetic="set", filtered=False),
                              "kept": ArmParams(real=True, synthetic="set")}, learned=0.0)
    facts = {run.arm: factory.run(run, benchmark) for run in plan_runs(benchmark)}
    assert facts["kept"][PRIMARY] is None and facts["kept"]["synthetic_clips"] == 0
    assert set(summarise(benchmark, factory.out)["c3d"]) == {"real", "all"}
    assert json.loads((factory.out / "verdict.json").read_text())["sentence"].endswith("kept no clip for them: kept.")


def test_a_synthetic_clip_made_from_a_test_patient_is_refused(factory: Factory) -> None:
    factory.edit("clips/set/provenance.parquet", ProvenanceRecord,
                 lambda rows: [replace(rows[0], patients=["p0", "p7"]), *rows[1:]])
    with pytest.raises(ValueError, match=r"leak: .* share p7"):  # though the chain dropped that clip
        factory.run(Run("mixed", "c3d", 0), benchmark_of({"mixed": ArmParams(real=True, synthetic="set")}))


@pytest.mark.parametrize("arm", [ArmParams(real=True, augment="basic"), ArmParams(real=True, augment="rand"),
                                 ArmParams(real=True, mix="mixup"), ArmParams(real=True, mix="videomix"),
                                 ArmParams(real=True, geometric=True)])
def test_every_rival_still_learns(factory: Factory, arm: ArmParams) -> None:
    benchmark = benchmark_of({"rival": arm})
    assert factory.run(Run("rival", "c3d", 0), benchmark)[PRIMARY] > 0.6


def test_rare_classes_shares_and_doses_take_what_they_say(factory: Factory) -> None:
    records = read_table(factory.root / "prepared/manifest.parquet", ClipRecord)

    def labels(**options: Any) -> Counter[str | None]:
        return Counter(records[row].label for row in real_rows(records, ArmParams(real=True, **options), 0))

    assert labels() == {"down": 6, "right": 6}
    assert labels(rare={"down": 0.34}) == {"down": 2, "right": 6}
    assert labels(real_share=0.5) == {"down": 3, "right": 3}
    half = real_rows(records, ArmParams(real=True, real_share=0.5), 0)
    assert half == real_rows(records, ArmParams(real=True, real_share=0.5, geometric=True), 0)
    assert {tuple(half)} != {tuple(real_rows(records, ArmParams(real=True, real_share=0.5), seed)) for seed in range(9)}
    short = benchmark_of({"real": ArmParams(real=True, synthetic="set", per_class=1, filtered=False)})
    assert factory.run(Run("real", "c3d", 0), short)["synthetic_clips"] == 2
    with pytest.raises(ValueError, match="nonsense is not a class; choose of down, right"):
        factory.run(Run("real", "c3d", 0), benchmark_of({"real": ArmParams(real=True, rare={"nonsense": 0.5})}))


def labelled(patients: dict[str, str]) -> list[ClipRecord]:
    """A training clip for each letter, which is its class."""
    return [ClipRecord(f"{patient}{row}", patient, "0", 0, 1, label, "", False, 0, "train")
            for patient, labels in patients.items() for row, label in enumerate(labels)]


@pytest.mark.parametrize("shows", [lambda patient: "abc", lambda patient: "ab"[patient % 2] * 3,
                                   lambda patient: ["a", "ab", "b"][patient % 3]])
def test_a_share_is_of_whole_patients_and_a_smaller_one_is_part_of_it(shows: Callable[[int], str]) -> None:
    """Patients who show every class, one class each, or either: as many as the share says, all their clips, every class."""
    records = labelled({f"p{patient:02}": shows(patient) for patient in range(24)})
    for seed in range(5):
        larger: set[str] = {record.patient for record in records}
        for share in (1.0, 0.5, 0.25, 0.125, 0.01):
            rows = real_rows(records, ArmParams(real=True, real_share=share), seed)
            kept = {records[row].patient for row in rows}
            assert rows == [row for row, record in enumerate(records) if record.patient in kept] and kept <= larger
            assert {records[row].label for row in rows} == {record.label for record in records}
            if share > 0.1:
                assert len(kept) == round(share * 24)
            larger = kept


def test_classes_are_drawn_evenly_and_so_are_their_clips() -> None:
    """Seven clips of one class and two of the other, in 9,000 draws; unbalanced, every clip is as likely as any."""
    records = labelled({"p": "aaaaaaabb"})
    ids = tuple(record.clip_id for record in records)
    batch = ClipBatch(ids, torch.zeros(9, 1, 1, 1, 1), Condition(ids, torch.zeros(9, 1, 1, 1, dtype=torch.uint8)))
    clips = Described(MemoryClips(batch), records)
    for balanced, expected in ((True, [4500 / 7] * 7 + [2250] * 2), (False, [1000] * 9)):
        turns = _Turns(clips, ["a", "b"], balanced=balanced)
        drawn = Counter(clip for part in draw([(turns, 1.0)], 9000, torch.Generator().manual_seed(0)) for clip in part.ids)
        for clip, number in zip(ids, expected, strict=True):
            assert abs(drawn[clip] - number) < 5 * number**0.5, (balanced, clip)
    assert _Turns(clips, ["a", "b"], 3, balanced=True).ids == (*ids[:3], *ids[7:])


def test_one_site_alone_is_tested_if_asked(factory: Factory) -> None:
    factory.edit("prepared/manifest.parquet", ClipRecord,
                 lambda rows: [replace(row, site="far" if int(row.clip_id[4:]) >= 16 else "near") for row in rows])
    run = Run("real", "c3d", 0)

    def tested(**more: Any) -> set[str]:
        factory.run(run, benchmark_of({"real": REAL}, **more))
        rows = next((factory.out / "runs").rglob("*.parquet"))
        return {row.clip_id for row in read_table(rows, ClassificationRecord)}

    assert tested(tested_on=["far"]) == {"real16", "real17", "real18", "real19"}
    assert len(tested()) == TESTED  # not the rows of the run before, kept
    with pytest.raises(ValueError, match="no labelled test clip is of site mars; there are those of 'far', 'near'"):
        factory.run(Run("real", "c3d", 0), benchmark_of({"real": REAL}, tested_on=["mars"]))


def test_what_cannot_be_scored_is_refused(factory: Factory) -> None:
    benchmark, run = benchmark_of({"real": REAL}), Run("real", "c3d", 0)
    path, original = "prepared/manifest.parquet", read_table(factory.root / "prepared/manifest.parquet", ClipRecord)

    def edit(change: Callable[[ClipRecord], dict[str, Any]]) -> None:
        factory.edit(path, ClipRecord, lambda rows: [replace(row, **change(row)) for row in original])

    edit(lambda row: {"label": "down" if row.split == "train" else row.label})
    with pytest.raises(ValueError, match="training split shows 1 classes"):
        factory.run(run, benchmark)
    edit(lambda row: {"label": "up" if row.clip_id == "real13" else row.label})
    with pytest.raises(ValueError, match="class up is in the test split alone"):
        factory.run(run, benchmark)
    edit(lambda row: {"label": None if row.split == "test" else row.label})
    with pytest.raises(ValueError, match="test split has no labelled clip"):
        factory.run(run, benchmark)
    edit(lambda row: {"patient": "p9" if row.clip_id == "real00" else row.patient})
    with pytest.raises(ValueError, match="training and test patients share p9"):
        factory.run(run, benchmark)
    edit(lambda row: {})
    factory.edit("clips/set/provenance.parquet", ProvenanceRecord, lambda rows: [replace(row, label=None) for row in rows])
    with pytest.raises(ValueError, match="synthetic clips of class ''"):
        factory.run(Run("mixed", "c3d", 0), benchmark_of({"mixed": ArmParams(real=True, synthetic="set")}))


def test_options_of_the_other_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arms\.real\.mix: not for kind: segmentation"):
        segmenter = NetworkParams(kind="dynunet", dims=2, train=NETWORK.train)
        BenchmarkParams(arms={"real": ArmParams(real=True, mix="mixup")}, baseline="real", networks={"d": segmenter}, seeds=[0])
    with pytest.raises(ValueError, match="distance_on: not for kind: classification"):
        benchmark_of({"real": REAL}, distance_on="mask")
    with pytest.raises(ValueError, match="networks c3d are not for kind: segmentation"):
        BenchmarkParams(arms={"real": REAL}, baseline="real", networks={"c3d": NETWORK}, seeds=[0])
    with pytest.raises(ValueError, match=r"arms\.real\.balanced: not for kind: segmentation"):
        BenchmarkParams(arms={"real": ArmParams(real=True, balanced=False)}, baseline="real", seeds=[0],
                        networks={"d": segmenter})
    with pytest.raises(ValueError, match=r"1 validation error(?s:.*)networks\.d\.segmenter\.filter"):
        BenchmarkParams(arms={"real": REAL}, baseline="real", seeds=[0],
                        networks={"d": {**segmenter.model_dump(), "filter": 1}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="choose one of"):
        ClassifierParams(kind="nothing", train=NETWORK.train)


def test_options_without_anything_to_work_on_are_refused() -> None:
    for options in ({"real_share": 0.5}, {"rare": {"down": 0.5}}):
        with pytest.raises(ValueError, match="need real: true"):
            ArmParams(synthetic="set", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a synthetic set"):
        ArmParams(real=True, per_class=3)
    for share in (0, -1, 2):
        with pytest.raises(ValueError, match=r"rare\.down"):
            ArmParams(real=True, rare={"down": share})


def planted(arms: dict[str, float], networks: tuple[str, ...] = ("one", "two"), seeds: int = 3,
            patients: int = 40) -> list[ClassificationRecord]:
    """Rows of arms that are right with a given chance, clip by clip: three clips a patient, two classes."""
    rows = []
    for arm, chance in arms.items():
        for network in networks:
            for seed in range(seeds):
                rng = np.random.default_rng(derive_seed(arm, network, seed))  # not `hash`, which differs between processes
                for clip in range(3 * patients):
                    truth = "ab"[clip // 3 % 2]
                    sure = rng.uniform(0.55, 0.95)
                    right = rng.random() < chance
                    first = sure if (truth == "a") == right else 1 - sure
                    rows.append(ClassificationRecord(arm, network, seed, f"clip{clip}", f"p{clip // 3}", truth, ["a", "b"],
                                                     [first, 1 - first]))
    return rows


def planted_benchmark(arms: list[str], learned: float | None = 0.6) -> BenchmarkParams:
    return BenchmarkParams(kind="classification", arms={arm: ArmParams(real=True, synthetic=None if arm == "base" else "set")
                                                        for arm in arms}, baseline="base", learned=learned,
                           networks={"one": NETWORK, "two": NETWORK}, seeds=[0, 1, 2], bootstrap=500)


def test_a_planted_gain_is_found_and_its_numbers_are_the_naive_ones() -> None:
    rows = planted({"base": 0.7, "better": 0.9, "same": 0.7})
    found = conclude(rows, planted_benchmark(["base", "better", "same"]))
    assert found.verdict["helped"] and found.verdict["arm"] == "better"
    by_name = {(one["network"], one["arm"], one["metric"]): one for one in found.comparisons}
    assert by_name["pooled", "same", PRIMARY]["verdict"] == "no significant difference"
    assert by_name["one", "better", "auroc"]["p"] is None and by_name["one", "better", "auroc"]["low"] > 0

    def cell(arm: str, network: str) -> list[ClassificationRecord]:
        return [row for row in rows if (row.arm, row.network) == (arm, network)]

    def accuracy(some: list[ClassificationRecord]) -> float:
        return float(np.mean([row.truth == row.classes[int(np.argmax(row.probabilities))] for row in some]))

    one = by_name["one", "better", "accuracy"]
    assert one["difference"] == pytest.approx(accuracy(cell("better", "one")) - accuracy(cell("base", "one")))
    assert one["seed_differences"] == pytest.approx([
        accuracy([row for row in cell("better", "one") if row.seed == seed])
        - accuracy([row for row in cell("base", "one") if row.seed == seed]) for seed in range(3)])

    def calls(arm: str) -> np.ndarray:
        mean = np.mean([[row.probabilities for row in cell(arm, "one") if row.seed == seed] for seed in range(3)], 0)
        return mean.argmax(1)

    truth = np.array([row.classes.index(row.truth) for row in cell("base", "one") if row.seed == 0])
    assert one["p"] == pytest.approx(mcnemar_exact(calls("better"), calls("base"), truth))
    family = [by_name[network, arm, "accuracy"] for network in ("one", "two") for arm in ("better", "same")]
    assert [each["p_holm"] for each in family] == pytest.approx(holm([each["p"] for each in family]))


def test_the_interval_of_a_difference_is_that_of_a_loop_over_draws() -> None:
    """Patients and trainings one draw after the other, clips written out as often as they were drawn, scikit-learn's metric."""
    draws, patients, seeds = 200, 40, 3
    rows = planted({"base": 0.7, "better": 0.8}, ("one",), seeds, patients)
    benchmark = planted_benchmark(["base", "better"]).model_copy(update={"networks": {"one": NETWORK}, "bootstrap": draws})
    found = next(one for one in conclude(rows, benchmark).comparisons if (one["network"], one["metric"]) == ("one", PRIMARY))
    calls = np.zeros((2, seeds, 3 * patients), int)
    for row in rows:
        calls[int(row.arm == "better"), row.seed, int(row.clip_id[4:])] = np.argmax(row.probabilities)
    truth = np.arange(3 * patients) // 3 % 2
    unit = np.unique([f"p{clip // 3}" for clip in range(3 * patients)], return_inverse=True)[1]
    of_patients = resamples(patients, draws, np.random.default_rng(0))
    of_trainings = resamples(seeds, draws, np.random.default_rng(1))
    loop = []
    for counts, trainings in zip(of_patients, of_trainings, strict=True):
        clips = np.repeat(np.arange(3 * patients), counts[unit])
        score = [[balanced_accuracy_score(truth[clips], calls[arm, seed, clips]) for seed in np.repeat(range(seeds), trainings)]
                 for arm in (0, 1)]
        loop.append(np.mean(score[1]) - np.mean(score[0]))
    assert (found["low"], found["high"]) == pytest.approx(np.quantile(loop, [0.025, 0.975]))


def test_a_network_that_guesses_carries_no_verdict() -> None:
    found = conclude(planted({"base": 0.5, "better": 0.9}), planted_benchmark(["base", "better"]))
    assert found.verdict["helped"] is None and "stayed below the balanced accuracy of 0.6" in found.verdict["sentence"]


@pytest.mark.parametrize("learned", [None, 0.45])
def test_one_class_for_every_clip_is_chance_and_not_learned_unless_asked(learned: float | None) -> None:
    rows = [replace(row, probabilities=[0.8, 0.2]) if row.arm == "base" else row
            for row in planted({"base": 0.5, "better": 0.9})]
    found = conclude(rows, planted_benchmark(["base", "better"], learned))
    assert found.metrics["one"]["base"][PRIMARY]["mean"] == 0.5 and found.metrics["one"]["base"]["auroc"]["mean"] == 0.5
    assert found.verdict["helped"] is (None if learned is None else True)
    assert ("below the balanced accuracy of 0.6 from" in found.verdict["sentence"]) == (learned is None)
