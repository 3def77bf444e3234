"""Do the four numbers say what they should: planted obedience and disobedience, closed forms, and a naive correlation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips, to_float
from models.critics import aligned, classifier
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import load_checkpoint, save_checkpoint
from tasks.control import control, label_agreement, paired_correlation, text_rank
from tasks.params import ControlParams
from tasks.records import Decision, PlanRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_table, write_table

FRAMES, SIDE, EACH = 4, 16, 6
LABELS, TEXTS = ("down", "right"), ("a dark room", "a bright room")


def scene(label: str, text: str, rng: np.random.Generator) -> np.ndarray:
    """A square that drifts down or right over a textured ground, dark or bright."""
    ground = rng.integers(0, 30, (SIDE, SIDE)) + (120 if text == TEXTS[1] else 20)
    frames = np.repeat(ground[None], FRAMES, 0).astype(np.uint8)
    top, left = rng.integers(1, 4, 2)
    for frame in range(FRAMES):
        down, right = (2 * frame, 0) if label == "down" else (0, 2 * frame)
        frames[frame, top + down : top + down + 5, left + right : left + right + 5] += 80
    return frames[..., None]


def write(path: Path, frames: np.ndarray) -> ClipStore:
    masks = np.full(frames.shape[:4], UNKNOWN, np.uint8)
    specs = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec(masks.shape[1:], "uint8")}
    store = ClipStore.create(path, specs, 64, "f")
    store.write_shard(0, [f"{row:032x}" for row in range(len(frames))], {"frames": frames, "masks": masks})
    store.finish(len(frames))
    return store


@pytest.fixture(scope="module")
def critics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both judges, trained on scenes the sets below do not show."""
    rng = np.random.default_rng(5)
    words = [(label, text) for label in LABELS for text in TEXTS] * 8
    frames = to_float(torch.from_numpy(np.stack([scene(*one, rng) for one in words])).movedim(-1, 2))
    ids = tuple(f"real{row}" for row in range(len(words)))
    masks = torch.full((len(words), FRAMES, SIDE, SIDE), UNKNOWN, dtype=torch.uint8)
    clips = MemoryClips(ClipBatch(ids, frames, Condition(ids, masks, *(tuple(one) for one in zip(*words, strict=True)))))
    folder = tmp_path_factory.mktemp("critics")
    train = TrainParams(steps=60, batch_size=16, learning_rate=3e-3, ema_decay=0.9)
    judge = classifier.fit(classifier.Params(network="c3d", width=8, train=train), clips, NoStates(), 0)
    reader = aligned.fit(aligned.Params(width=16, grid=2, train=train), clips, NoStates(), 0)
    save_checkpoint(folder / "judge", judge, fingerprint="f", trained_on={})
    save_checkpoint(folder / "reader", reader, fingerprint="f", trained_on={})
    return folder


def made(folder: Path, obeys: tuple[str, ...]) -> Path:
    """A bank of scenes and a set with two clips of each condition, which obeys some of what it is asked."""
    rng = np.random.default_rng(1)
    asked = [(label, text) for label in LABELS for text in TEXTS] * EACH
    bank = np.stack([scene(*one, rng) for one in asked])
    write(folder / "bank" / "bank.zarr", bank)
    clips, plan = [], []
    for row, (label, text) in enumerate(asked * 2):
        other = ("right" if label == "down" else "down", TEXTS[1 - TEXTS.index(text)])
        clip = scene(label if "label" in obeys else other[0], text if "text" in obeys else other[1], rng)
        clips.append(bank[row % len(asked)] if "reference" in obeys else clip)
        condition = row % len(asked)
        plan.append(PlanRecord(f"{row:032x}", label, text, f"c{condition}", condition, row // len(asked), row, 0))
    write(folder / "set" / "clips.zarr", np.stack(clips))
    write_table(folder / "set" / "plan.parquet", plan, PlanRecord)
    decisions = [Decision(one.clip_id, "half", row % 2 == 0, 0.0, "", "") for row, one in enumerate(plan)]
    decisions += [Decision(one.clip_id, "rest", row % 4 == 0, 0.0, "", "") for row, one in enumerate(plan) if row % 2 == 0]
    write_table(folder / "decisions" / "decisions.parquet", decisions, Decision)
    return folder


def numbers(folder: Path, critics: Path) -> dict[str, dict[str, float]]:
    params = ControlParams(classifier="judge", aligned="reader")
    found = control(params, folder / "bank", critics, folder / "set", folder / "decisions", folder / "out")
    assert json.loads((folder / "out" / "control.json").read_text()) == found
    return found


def test_obedience_is_far_above_chance_and_disobedience_below(tmp_path: Path, critics: Path) -> None:
    good = numbers(made(tmp_path / "good", ("label", "text", "reference")), critics)
    assert good["label"]["value"] > 0.9 and good["text"]["value"] > 0.9 and good["image"]["value"] > 0.999
    assert good["motion"]["value"] == pytest.approx(1)
    for one in good.values():
        assert one["value"] > one["chance"] and one["low"] > 0 and one["clips"] == 2 * 4 * EACH
        assert one["low"] <= one["advantage"] <= one["high"]
    bad = numbers(made(tmp_path / "bad", ()), critics)
    assert bad["label"]["value"] < 0.2 and bad["text"]["value"] < 0.2 and bad["motion"]["value"] < 0.3
    assert bad["label"]["high"] < 0 and bad["text"]["high"] < 0


def test_filters_change_a_number_by_what_they_leave_out(tmp_path: Path, critics: Path) -> None:
    folder = made(tmp_path, ("label",))
    rows = read_table(folder / "set" / "plan.parquet", PlanRecord)
    store = ClipStore.open(folder / "set" / "clips.zarr")
    judge = load_checkpoint(critics / "judge")
    called = classifier.probabilities(judge, store.read(range(len(store))).frames).argmax(1).tolist()
    right = [judge.facts["labels"][one] == row.label for one, row in zip(called, rows, strict=True)]
    # one filter keeps what the judge agrees with and every third other clip, the next one all of those
    keep = [good or number % 3 == 0 for number, good in enumerate(right)]
    flipped = [good if number % 5 else not good for number, good in enumerate(keep)]
    decisions = [Decision(row.clip_id, "agree", good, 0.0, "", "") for row, good in zip(rows, flipped, strict=True)]
    decisions += [Decision(row.clip_id, "all", True, 0.0, "", "") for row, good in zip(rows, flipped, strict=True) if good]
    write_table(folder / "decisions" / "decisions.parquet", decisions, Decision)
    found = numbers(folder, critics)["label"]
    first, second = found["filters"]["agree"], found["filters"]["all"]
    assert list(found["filters"]) == ["agree", "all"]
    assert first["before"] == pytest.approx(np.mean(right)) == pytest.approx(found["value"])
    assert first["after"] == pytest.approx(np.mean([good for good, kept in zip(right, flipped, strict=True) if kept]))
    assert first["kept"] == sum(flipped) == second["clips"] == second["kept"]
    assert second["before"] == second["after"] == first["after"] and second["gain"] == second["low"] == second["high"] == 0


def test_a_bank_of_masks_has_nothing_to_say(tmp_path: Path, critics: Path) -> None:
    folder = made(tmp_path, ("label",))
    masks = np.zeros((4 * EACH, FRAMES, SIDE, SIDE), np.uint8)
    store = ClipStore.create(folder / "bank" / "bank.zarr", {"masks": ArraySpec(masks.shape[1:], "uint8")}, 64, "g")
    store.write_shard(0, [f"{row:032x}" for row in range(len(masks))], {"masks": masks})
    store.finish(len(masks))
    assert numbers(folder, critics) == {}


def test_agreement_and_its_chance() -> None:
    called = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    value, chance = label_agreement(called, ["a", "b"], ["a", "b", "", "b"])
    assert np.array_equal(value, [1, 0, np.nan, 1], equal_nan=True)
    assert np.array_equal(chance, [0.75, 0.25, np.nan, 0.25], equal_nan=True)


def test_rank_of_the_asked_text() -> None:
    likeness = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    value, chance = text_rank(likeness, ["x", "y", "z"], ["x", "z", "y"])
    assert value.tolist() == [1.0, 0.0, 0.25]
    assert chance.tolist() == [(1.0 + 0.25) / 2, (0.0 + 1.0) / 2, (0.5 + 0.5) / 2]


def test_correlations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    own, asked = rng.normal(size=(5, 40)), rng.normal(size=(5, 40))
    own[3] = 7.0
    groups = ["a", "a", "b", "c", "c"]
    value, chance = paired_correlation(torch.from_numpy(own), torch.from_numpy(asked), groups)
    for row in (0, 1, 2, 4):
        assert value[row] == pytest.approx(np.corrcoef(own[row], asked[row])[0, 1])
        others = [np.corrcoef(own[row], asked[other])[0, 1] for other in range(5) if groups[other] != groups[row]]
        assert chance[row] == pytest.approx(np.mean(others))
    assert np.isnan(value[3]) and np.isnan(chance[3])
