"""From rows made by hand to means, comparisons and the sentence."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from models.trainer import TrainParams
from tasks.comparisons import POOLED, compare, learned, summaries, verdict
from tasks.metrics.segmentation import METRICS
from tasks.params import ArmParams, BenchmarkParams, NetworkParams
from tasks.records import EvaluationRecord

TRAIN = TrainParams(steps=1, batch_size=1)
NETWORKS = {"dyn": NetworkParams(kind="dynunet", dims=2, train=TRAIN), "v": NetworkParams(kind="vnet", dims=2, train=TRAIN)}
ARMS = {"real_geometric": ArmParams(real=True, geometric=True), "mixed": ArmParams(real=True, geometric=True, synthetic="s"),
        "real": ArmParams(real=True)}
BENCHMARK = BenchmarkParams(arms=ARMS, baseline="real_geometric", networks=NETWORKS, seeds=[0, 1, 2], bootstrap=500)
PATIENTS = 16


def table(dice: Callable[[str, str, int, int], float], benchmark: BenchmarkParams = BENCHMARK) -> list[EvaluationRecord]:
    """Rows of two clips a patient; the distances are 10 times what is missing to a Dice of 1."""
    rows = []
    for arm in benchmark.arms:
        for network in benchmark.networks:
            for seed in benchmark.seeds:
                for patient in range(PATIENTS):
                    for clip in range(2):
                        value = dice(arm, network, seed, patient) + 0.01 * (2 * clip - 1)
                        for label in ("head", "tail", "mean"):
                            clip_id, far = f"{patient}-{clip}", 10 * (1 - value)
                            rows.append(EvaluationRecord(arm, network, seed, clip_id, f"p{patient}", label, value, value,
                                                         float("nan"), far, far, far, 0))
    return rows


def skill(gain: float) -> Callable[[str, str, int, int], float]:
    """Patients differ by up to 0.2, seeds by 0.02, networks by 0.1; `mixed` is `gain` better, more for some patients."""
    return lambda arm, network, seed, patient: (
        0.5 + 0.2 * np.sin(patient) + 0.02 * (seed - 1) + 0.1 * (network == "v")
        + (arm == "mixed") * gain * (1 + 0.5 * np.cos(3 * patient)) - 0.1 * (arm == "real")
    )


def compared(rows: list[EvaluationRecord], benchmark: BenchmarkParams = BENCHMARK) -> list[dict[str, object]]:
    return compare(rows, summaries(rows, benchmark), benchmark)


def judged(rows: list[EvaluationRecord], benchmark: BenchmarkParams = BENCHMARK) -> dict[str, object]:
    metrics = summaries(rows, benchmark)
    return verdict(metrics, compare(rows, metrics, benchmark), benchmark)


def one(rows: list[dict[str, object]], **wanted: str) -> dict[str, object]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_means_count_patients_and_seeds() -> None:
    metrics = summaries(table(skill(0.05)), BENCHMARK)
    dice = metrics["dyn"]["real_geometric"]["dice"]
    assert dice["mean"] == pytest.approx(0.5 + 0.2 * np.sin(np.arange(PATIENTS)).mean())
    assert dice["low"] < dice["mean"] < dice["high"] and dice["patients"] == PATIENTS
    assert dice["seed_sd"] == pytest.approx(0.02)
    assert metrics["v"]["real"]["dice"]["mean"] == pytest.approx(dice["mean"])
    assert set(metrics["v"]["mixed"]) == {*METRICS, "dice_head", "dice_tail"}
    assert metrics["v"]["mixed"]["precision"]["mean"] is None
    assert metrics["counts"] == {"patients": PATIENTS, "clips": 2 * PATIENTS, "seeds": 3, "networks": 2, "arms": 3}


def test_a_gain_is_found_pooled_and_by_network_whatever_the_metric() -> None:
    rows = compared(table(skill(0.05)))
    for network in ("dyn", "v", POOLED):
        dice = one(rows, network=network, arm="mixed", metric="dice")
        expected = 0.05 * (1 + 0.5 * np.cos(3 * np.arange(PATIENTS)).mean())
        assert dice["difference"] == pytest.approx(expected) and dice["verdict"] == "significant gain"
        assert dice["seed_differences"] == pytest.approx([expected] * 3) and dice["patients"] == PATIENTS
        farther = one(rows, network=network, arm="mixed", metric="hausdorff")
        assert farther["difference"] == pytest.approx(-10 * expected) and farther["verdict"] == "significant gain"
        assert one(rows, network=network, arm="real", metric="dice")["verdict"] == "significant loss"
        assert one(rows, network=network, arm="real", metric="g2re")["verdict"] == "significant loss"
    undefined = one(rows, network=POOLED, arm="mixed", metric="precision")
    assert undefined["verdict"] == "not defined" and undefined["difference"] is None and undefined["patients"] == 0
    json.dumps(rows, allow_nan=False)


def test_correction_is_over_arms_and_networks_of_one_metric() -> None:
    """16 gains of 16: p = 2 / 2^16 for each of 4 comparisons by network and 2 pooled ones."""
    rows = compared(table(skill(0.05)))
    assert one(rows, network="dyn", arm="mixed", metric="dice")["p"] == pytest.approx(2**-15)
    assert one(rows, network="dyn", arm="mixed", metric="dice")["p_holm"] == pytest.approx(4 * 2**-15)
    assert one(rows, network=POOLED, arm="mixed", metric="dice")["p_holm"] == pytest.approx(2 * 2**-15)


@pytest.mark.parametrize(
    ("gain", "helped", "start"),
    [(0.05, True, "Synthetic clips helped: the best such arm, mixed,"),
     (0.0, False, "Synthetic clips did not help significantly:"),
     (-0.05, False, "Synthetic clips did not help but cost accuracy:")],
)
def test_the_sentence_says_it_plainly(gain: float, helped: bool, start: str) -> None:
    found = judged(table(skill(gain)))
    assert found["helped"] is helped and found["sentence"].startswith(start)
    assert f"difference {found['difference']:+.3f}" in found["sentence"] and "16 held-out patients" in found["sentence"]


def test_seeds_that_disagree_are_no_gain() -> None:
    """+0.06, +0.05 and -0.03: certain for these networks on any patients, and nothing to rely on for the next training."""
    gains = (0.06, 0.05, -0.03)
    rows = table(lambda arm, network, seed, patient: skill(0)(arm, network, seed, patient) + (arm == "mixed") * gains[seed])
    found = one(compared(rows), network="dyn", arm="mixed", metric="dice")
    assert found["p_holm"] < 0.01 and found["verdict"] == "no significant difference"
    assert judged(rows)["helped"] is False and "same sign in 2 of 3 seeds" in str(judged(rows)["sentence"])


def test_a_network_that_has_not_learned_carries_no_verdict() -> None:
    """Its gain is large and certain, and must not make "helped" of a network that has learned and gains nothing."""
    def dice(arm: str, network: str, seed: int, patient: int) -> float:
        return skill(0)(arm, network, seed, patient) if network == "dyn" else 0.1 + 0.1 * (arm == "mixed") + 0.001 * patient

    rows = table(dice)
    assert learned(summaries(rows, BENCHMARK), BENCHMARK) == ["dyn"]
    comparisons = compared(rows)
    assert one(comparisons, network="v", arm="mixed", metric="dice")["verdict"] == "significant gain"
    alone, pooled = (one(comparisons, network=network, arm="mixed", metric="dice") for network in ("dyn", POOLED))
    assert pooled["difference"] == alone["difference"] and pooled["verdict"] == "no significant difference"
    found = judged(rows)
    assert found["helped"] is False
    assert "16 held-out patients; dyn)" in str(found["sentence"]) and str(found["sentence"]).endswith(": v (0.108).")


def test_when_no_network_has_learned_nothing_is_said() -> None:
    benchmark = BENCHMARK.model_copy(update={"learned": 0.95})
    rows = table(skill(0.05), benchmark)
    assert not [row for row in compared(rows, benchmark) if row["network"] == POOLED]
    found = judged(rows, benchmark)
    assert found["helped"] is None and "train the benchmark's networks for longer" in found["sentence"]


def test_no_synthetic_arm_no_claim() -> None:
    benchmark = BENCHMARK.model_copy(update={"arms": {name: ARMS[name] for name in ("real_geometric", "real")}})
    assert judged(table(skill(0), benchmark), benchmark)["helped"] is None


def test_a_patient_undefined_for_one_network_is_left_out_of_the_pool() -> None:
    def dice(arm: str, network: str, seed: int, patient: int) -> float:
        return float("nan") if (network, patient) == ("v", 0) else skill(0.05)(arm, network, seed, patient)

    rows = compared(table(dice))
    dices = [one(rows, network=network, arm="mixed", metric="dice") for network in ("dyn", "v", POOLED)]
    assert [row["patients"] for row in dices] == [16, 15, 15]
