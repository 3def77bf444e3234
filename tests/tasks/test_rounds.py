"""Rounds of candidates: arithmetic by hand, a plan that only grows, a real little generator that is killed between rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.critics import classifier
from models.generators import Checkpoint
from models.generators.surv_gen import Params, build
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint
from tasks.condition import make_conditions
from tasks.params import SampleParams
from tasks.records import ClipRecord, PlanRecord
from tasks.rounds import clips_of_classes, next_round, sample_until
from tasks.sample import finish, plan_shards, sample_shard
from tasks.store import ArraySpec, ClipStore, clip_digest
from tasks.tables import read_table, write_table
from tasks.train import training_clips

FRAMES, SIDE = 4, 16
STEPS = {"steps": 2, "batch_size": 2}
TINY: dict[str, Any] = {
    "codec": {"channels": [8, 8], "train": STEPS}, "alignment": {"width": 16, "grid": 2, "train": STEPS},
    "image": {"channels": [16, 16], "head_width": 8, "train": STEPS}, "motion": {"heads": 2, "longest": 8, "train": STEPS},
}
JUDGE = {"kind": "rejection", "critic": "judge", "top_k": 1}


def sample(**more: Any) -> SampleParams:
    return SampleParams.model_validate({"generator": "g", "clips": 40, "shard_clips": 4, "batch_clips": 4, "until": "rejection",
                                        "per_class": "balance", "sampling": {"steps": 1, "guidance": 1.0}, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training clips of a common class and three of a rare one, and one test clip; a generator and a judge of them."""
    data, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    labels = ["down"] * 12 + ["right"] * 3 + ["down"]
    frames = rng.integers(0, 60, (16, FRAMES, SIDE, SIDE, 1)).astype(np.uint8)
    for row, label in enumerate(labels):
        for time in range(FRAMES):
            y, x = (2 + 2 * time, 3 + row % 5) if label == "down" else (3 + row % 5, 2 + 2 * time)
            frames[row, time, y : y + 4, x : x + 4] += 150
    masks = np.full(frames.shape[:4], 255, np.uint8)
    ids = [clip_digest({"frames": one}) for one in frames]
    arrays = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec(masks.shape[1:], "uint8")}
    store = ClipStore.create(data / "prepared/clips.zarr", arrays, 16, "f")
    store.write_shard(0, ids, {"frames": frames, "masks": masks})
    store.finish(16)
    write_table(data / "prepared/manifest.parquet",
                [ClipRecord(clip, f"p{row}", "0", 0, 1, label, f"it goes {label}", False, row, "train" if row < 15 else "test")
                 for row, (clip, label) in enumerate(zip(ids, labels, strict=True))], ClipRecord)
    make_conditions({"kind": "clips", "count": 6}, 0, data / "prepared", data / "conditions")
    clips, _ = training_clips(data / "prepared")
    save_checkpoint(data / "g", build(Params.model_validate(TINY)).fit(clips, NoStates(), 0), fingerprint="f", trained_on={})
    params = classifier.Params(network="c3d", width=4, train=TrainParams(steps=4, batch_size=4))
    judge = classifier.fit(params, clips, NoStates(), 0)
    _doubt(judge, data)
    save_checkpoint(data / "critics/judge", judge, fingerprint="f", trained_on={})
    return data


def _doubt(judge: Checkpoint, data: Path) -> None:
    """Move the judge's bias so that it keeps about a third of what the generator makes of the rare class."""
    first = sample(until=None, per_class={"right": 16}, clips=16)
    plan_shards(first, 7, data / "g", data / "conditions", data / "first", [{"right": 16}])
    for shard in range(4):
        sample_shard(shard, data / "g", data / "conditions", data / "first")
    finish("g", data / "conditions", data / "g", data / "first")
    with torch.no_grad():
        logits = judge.nets["classifier"](ClipStore.open(data / "first/clips.zarr").read(range(16)).frames)
        last = [module for module in judge.nets["classifier"].modules() if isinstance(module, nn.Linear)][-1]
        last.bias[1] -= (logits[:, 1] - logits[:, 0]).quantile(0.66)


def run(data: Path, out: Path, wanted: SampleParams, stop_after: int | None = None) -> dict[str, dict[str, Any]]:
    """The flow's own loop, without Prefect; `stop_after` rounds it is killed."""
    done = 0

    def make(rounds: Sequence[Mapping[str, int]], basis: Any) -> int:
        nonlocal done
        if done == stop_after:
            raise KeyboardInterrupt
        left = plan_shards(wanted, 7, data / "g", data / "conditions", out, rounds, basis)
        for shard in left:
            sample_shard(shard, data / "g", data / "conditions", out)
        done += 1
        return len(left)

    _, classes = sample_until(wanted, clips_of_classes(wanted, data / "prepared"), JUDGE, data / "critics", out, make)
    finish("g", data / "conditions", data / "g", out)
    return classes


def test_a_balance_is_what_training_clips_lack(made: Path) -> None:
    assert clips_of_classes(sample(), made / "prepared") == {"right": 9}
    assert clips_of_classes(sample(per_class={"down": 0, "right": 2}), made / "prepared") == {"right": 2}
    with pytest.raises(ValueError, match=r"asks for 9 clips \(right 9\), but clips allows 8"):
        clips_of_classes(sample(clips=8), made / "prepared")


def test_a_round_asks_for_what_is_short_over_the_rate() -> None:
    wanted = sample(clips=100, shard_clips=4)
    assert next_round(wanted, {"a": 6, "b": 2}, {}, {}, 0) == {"a": 6, "b": 2}
    # a: 3 of 6 kept, rate 4/7, so 3 more take 6; b has enough; shards of 4 are filled
    assert next_round(wanted, {"a": 6, "b": 2}, {"a": 6, "b": 2}, {"a": 3, "b": 2}, 1) == {"a": 8}
    assert next_round(wanted, {"a": 6}, {"a": 14}, {"a": 6}, 2) == {}
    assert next_round(sample(rounds=2), {"a": 6}, {"a": 14}, {"a": 1}, 2) == {}
    # nothing kept of 90: rate 1/91 would ask for hundreds, ten are left
    assert next_round(wanted, {"a": 6}, {"a": 90}, {}, 1) == {"a": 10}
    assert next_round(wanted, {"a": 6}, {"a": 100}, {}, 2) == {}


def test_a_class_hardly_ever_kept_does_not_starve_the_others() -> None:
    """As rotate and inject in the first study of actions: 20 and 1 of 40 kept; shares by need left rotate 6 of 120."""
    wanted = sample(clips=200, shard_clips=20)
    asked, made, kept = {"rotate": 40, "inject": 40}, {"rotate": 40, "inject": 40}, {"rotate": 20, "inject": 1}
    assert next_round(wanted, asked, made, kept, 1) == {"rotate": 40, "inject": 80}
    assert next_round(sample(clips=120, shard_clips=20), asked, made, kept, 1) == {"rotate": 20, "inject": 20}


@given(asked=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), seed=st.integers(0, 999),
       budget=st.integers(1, 200), shard=st.integers(1, 9))
def test_rounds_end_within_budget_and_fill_shards(asked: dict[str, int], seed: int, budget: int, shard: int) -> None:
    rng = np.random.default_rng(seed)
    wanted, made, kept = sample(clips=budget, shard_clips=shard), dict.fromkeys(asked, 0), dict.fromkeys(asked, 0)
    rate = dict(zip(asked, rng.random(len(asked)), strict=True))
    for number in range(wanted.rounds + 1):
        counts = next_round(wanted, asked, made, kept, number)
        if not counts:
            break
        total = sum(counts.values())
        assert all(kept[label] < asked[label] for label in counts) and min(counts.values()) > 0
        assert total % shard == 0 or sum(made.values()) + total == budget
        for label, count in counts.items():
            made[label] += count
            kept[label] += int(rng.binomial(count, rate[label]))
    assert not counts and sum(made.values()) <= budget
    enough = all(kept[label] >= number for label, number in asked.items())
    assert enough or sum(made.values()) == budget or number == wanted.rounds


def test_a_killed_run_ends_with_the_same_clips(made: Path, tmp_path: Path) -> None:
    wanted = sample(rounds=4)
    classes = run(made, tmp_path / "whole", wanted)
    told = json.loads((tmp_path / "whole/rounds.json").read_text())
    assert told["classes"] == classes and set(classes) == {"right"} and classes["right"]["wanted"] == 9
    plan = read_table(tmp_path / "whole/plan.parquet", PlanRecord)
    assert len(plan) == classes["right"]["made"] == sum(one["made"]["right"] for one in told["rounds"]) <= 40
    assert {record.label for record in plan} == {"right"} and len({record.clip_id for record in plan}) == len(plan)
    assert classes["right"]["kept"] >= 9 or len(plan) == 40 or len(told["rounds"]) == 4
    assert len(told["rounds"]) > 1 and 0 < classes["right"]["rate"] < 1
    with pytest.raises(KeyboardInterrupt):
        run(made, tmp_path / "killed", wanted, stop_after=1)
    assert run(made, tmp_path / "killed", wanted) == classes
    one, other = (ClipStore.open(tmp_path / name / "clips.zarr") for name in ("whole", "killed"))
    assert one.digest == other.digest and len(one) == len(plan)
    assert run(made, tmp_path / "whole", wanted) == classes  # again: nothing is made, the same is told
    assert ClipStore.open(tmp_path / "whole/clips.zarr").digest == one.digest


def test_a_histogram_without_rejection_goes_through_each_class_s_conditions(made: Path, tmp_path: Path) -> None:
    wanted = sample(until=None, per_class={"down": 2, "right": 5}, clips=7)
    plan_shards(wanted, 7, made / "g", made / "conditions", tmp_path, [clips_of_classes(wanted, made / "prepared")])
    plan = read_table(tmp_path / "plan.parquet", PlanRecord)
    assert [record.label for record in plan] == ["down", "right", "down", "right", "right", "right", "right"]
    rare = [record for record in plan if record.label == "right"]
    assert len({(record.condition_id, record.draw) for record in rare}) == 5 and len({r.condition_id for r in rare}) == 3
    with pytest.raises(ValueError, match="no condition is of class left; the bank has down, right"):
        plan_shards(wanted, 7, made / "g", made / "conditions", tmp_path, [{"left": 1}])


@pytest.mark.parametrize(("change", "message"), [
    ({"per_class": None}, "until: needs per_class"),
    ({"until": None, "rounds": 3}, "rounds: counts those of until"),
])
def test_half_a_wish_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**change)
