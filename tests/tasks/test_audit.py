"""The audit names copies, accuses nobody else, and keeps a condition's own clip apart; see test_planted_copies.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.copies import ALTERED
from models.clip import UNKNOWN
from tasks import audit as module
from tasks.audit import audit, share_of
from tasks.metrics.copies import (
    Question,
    details,
    distance_ratio,
    left_out_alarms,
    nearest,
    pictures,
    threshold_of,
    views,
)
from tasks.readers.phantom import Params, simulate
from tasks.records import AuditRecord, ClipRecord, ConditionRecord, ProvenanceRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_json, read_table, write_table

TRAINING, HELD_OUT, FRAMES = 12, 12, 4


def recordings(patients: range, clips: int = 2) -> np.ndarray:
    params = Params.model_validate({"frames": FRAMES, "size": (40, 40)})
    return np.stack([simulate(params, patient, clip).frames for patient in patients for clip in range(clips)])


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return recordings(range(TRAINING))


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    return recordings(range(50, 50 + HELD_OUT))


def test_nearest_is_what_a_loop_over_pairs_finds(monkeypatch: pytest.MonkeyPatch, training: np.ndarray) -> None:
    """Blocks, questions and frames; the second look is switched off, since it only ever raises what the first one found."""
    monkeypatch.setattr("tasks.metrics.copies.ROUNDS", 0)
    known, asked = training[:6], ALTERED["cropped to 0.9"](training[8], np.random.default_rng(0))
    queries = details(pictures(np.stack([training[3], asked, training[1]])))
    allowed = torch.tensor([[True] * 6, [True, False] * 3, [False] * 6])
    found = nearest(queries, 6, lambda rows: pictures(known[list(rows)]), [Question(allowed), Question(allowed, 2)], block=4)
    seen = views(pictures(known)[:, ::2])
    for first, one in zip((0, 2), found, strict=True):
        for row in range(2):
            alike = {other: max(float(a @ b) for a in queries[row, first:] for b in seen[other].flatten(0, 1))
                     for other in range(6) if allowed[row, other]}
            best = max(alike, key=lambda other: alike[other])
            assert (int(one.row[row]), pytest.approx(alike[best], abs=1e-4)) == (best, float(one.similarity[row]))
        assert torch.isnan(one.similarity[2]) and one.row[2] == -1


def test_a_second_look_never_takes_similarity_away(training: np.ndarray) -> None:
    cropped = np.stack([ALTERED["cropped to 0.75"](clip, np.random.default_rng(row)) for row, clip in enumerate(training[:4])])
    queries = details(pictures(cropped))
    everyone = Question(torch.ones(4, 4, dtype=torch.bool))
    (found,) = nearest(queries, 4, lambda rows: pictures(training[list(rows)]), [everyone])
    coarse = (queries.flatten(0, 1) @ views(pictures(training[:4])[:, ::2]).flatten(0, 2).T).view(4, -1).amax(1)
    assert (found.similarity >= coarse - 1e-5).all() and found.similarity.mean() > coarse.mean() + 0.02


def test_thresholds_and_ratios_by_hand() -> None:
    values = np.arange(200) / 200
    assert (values >= threshold_of(values, 0.01)).mean() == 0.005
    assert not (values[:50] >= threshold_of(values[:50], 0.01)).any()
    assert left_out_alarms(np.array([0.1, 0.2, 0.9, 0.15]), ["a", "a", "b", "b"], 0.01) == 0.25
    assert left_out_alarms(values, ["one"] * 200, 0.01) is None
    assert distance_ratio(np.array([1.0, 0.5, -1.0]), np.array([1.0, -1.0, 1.0])).tolist() == pytest.approx([1, 0.5, 2e6])


def audited(copies: list[bool], conditions: list[str]) -> list[AuditRecord]:
    return [AuditRecord(str(row), condition, "a", "p", 0.5, "b", 0.5, 1.0, None, None, copy)
            for row, (copy, condition) in enumerate(zip(copies, conditions, strict=True))]


def test_the_interval_is_over_conditions() -> None:
    copies = [True] * 20 + [False] * 60
    alone = share_of(audited(copies, [str(row) for row in range(80)]))
    together = share_of(audited(copies, [str(row // 20) for row in range(80)]))
    assert alone["value"] == together["value"] == 0.25 and together["conditions"] == 4
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
    none = share_of(audited([False] * 80, [str(row // 20) for row in range(80)]))
    assert none["low"] == 0 and 0.3 < none["high"] < 0.6  # none of four conditions is no proof of none


def stored(path: Path, ids: list[str], frames: np.ndarray, pixels: bool = True) -> None:
    arrays = {"masks": np.full(frames.shape[:4], UNKNOWN, np.uint8), **({"frames": frames} if pixels else {})}
    store = ClipStore.create(path, {name: ArraySpec(one.shape[1:], "uint8") for name, one in arrays.items()}, 64, "f")
    store.write_shard(0, ids, arrays)
    store.finish(len(ids))


def a_set(root: Path, training: np.ndarray, held_out: np.ndarray, made: np.ndarray, of: list[int],
          given: bool) -> tuple[Path, Path, Path, Path, Path]:
    """A set as `audit` takes it; clip i was asked for with training clip of[i], whose pixels were `given` or not."""
    real = np.concatenate([training, held_out])
    ids = [f"{row:032x}" for row in range(len(real))]
    stored(root / "prepared" / "clips.zarr", ids, real)
    records = [ClipRecord(one, f"patient{row // 2}", f"{row:064x}", 0, 1, None, "", False, row // 2,
                          "train" if row < len(training) else "test") for row, one in enumerate(ids)]
    write_table(root / "prepared" / "manifest.parquet", records, ClipRecord)
    bank = [ConditionRecord(f"condition{row}", [records[row].patient], [ids[row]], None, "") for row in range(len(training))]
    write_table(root / "conditions" / "conditions.parquet", bank, ConditionRecord)
    stored(root / "conditions" / "bank.zarr", ids[: len(training)], training, given)
    names = [f"made{row}" for row in range(len(made))]
    stored(root / "clips" / "clips.zarr", names, made)
    asked = '{"use": ["image"]}'
    made_of = [ProvenanceRecord(name, None, "", "d", "g", "c", f"condition{row}", bank[row].patients, 0, 0, asked, "{}", "p")
               for name, row in zip(names, of, strict=True)]
    write_table(root / "clips" / "provenance.parquet", made_of, ProvenanceRecord)
    return root / "prepared", root / "conditions", root / "checkpoint", root / "clips", root / "audit"


def test_copies_are_named_and_others_are_not(tmp_path: Path, training: np.ndarray, held_out: np.ndarray) -> None:
    """Two clips of four copy a training clip that they were not asked for with; two are of people who are in no split."""
    made = np.concatenate([training[[4, 9]][:, :, :, ::-1], recordings(range(90, 92), 1)])
    folders = a_set(tmp_path, training, held_out, made, [0, 2, 14, 16], given=True)
    found = audit(*folders)
    rows = read_table(folders[-1] / "audit.parquet", AuditRecord)
    assert [row.near_copy for row in rows] == [True, True, False, False]
    assert [(row.nearest, row.patient) for row in rows[:2]] == [(f"{4:032x}", "patient2"), (f"{9:032x}", "patient4")]
    assert all(row.ratio is not None and row.ratio < 0.1 for row in rows[:2])
    assert rows[0].similarity == pytest.approx(1, abs=1e-3)
    assert (found["share"]["copies"], found["share"]["value"]) == (2, 0.5) and found["threshold"]["rough"]
    assert found["ratio"]["chance"] == pytest.approx(22 / 46)  # the condition's own patient has two clips
    assert found == read_json(folders[-1] / "audit.json") and (folders[-1] / "audit.webp").stat().st_size > 0
    assert "2 of 4 synthetic clips (50.0 %" in found["sentence"] and "the threshold is rough" in found["sentence"]


@pytest.mark.parametrize("given", [True, False])
def test_a_clip_may_show_its_own_condition_if_that_was_given(tmp_path: Path, training: np.ndarray, held_out: np.ndarray,
                                                             given: bool) -> None:
    """A still's first frame, then a stranger's: told to where pixels were given, memory where they were not."""
    made = recordings(range(95, 97), 1)
    made[:, 0] = training[[2, 6], 0]
    found = audit(*a_set(tmp_path, training, held_out, made, [2, 6], given))
    assert found["own"]["given"] == given and found["own"]["share"] == 1 and found["own"]["share_after_first"] == 0
    assert found["share"]["copies"] == (0 if given else 2)


def test_without_held_out_clips_there_is_one_clear_line(tmp_path: Path, training: np.ndarray) -> None:
    folders = a_set(tmp_path, training, training[:0], training[:1], [0], given=False)
    with pytest.raises(ValueError, match="24 training and 0 held-out clips; it needs some of both"):
        audit(*folders)


def test_a_picture_without_detail_is_like_nothing() -> None:
    flat = pictures(np.full((1, FRAMES, 80, 96, 1), 90, np.uint8))
    assert flat.shape == (1, FRAMES, 64, 64) and not details(flat).any()


def test_memory_is_read_in_blocks(training: np.ndarray) -> None:
    asked: list[int] = []

    def read(rows: Any) -> Tensor:
        asked.append(len(rows))
        return pictures(training[list(rows)])

    nearest(details(pictures(training[:2])), len(training), read, [Question(torch.ones(2, len(training), dtype=torch.bool))], 4)
    assert max(asked) <= 8 and module.READ_TOGETHER < 64
