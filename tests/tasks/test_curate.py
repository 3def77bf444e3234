"""The chain on real stores, checkpoints and critics: filters see the survivors, verdicts are rows, nothing is lost."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.clip import ClipBatch, Condition, MemoryClips, to_float
from models.critics import segmenter, vae
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint
from tasks.curate import chain_folder, clear_evidence, run_chain, score_shard, shards_of
from tasks.params import Entry
from tasks.records import Decision, PlanRecord, ScoreRecord, accepted
from tasks.store import ArraySpec, ClipStore
from tasks.tables import read_json, read_table, write_table

FRAMES, SIDE, CLIPS = 3, 16, 7
MISPLACED, COPY, MISPLACED_COPY = 2, 3, 6
"""Clip 2 shows its square elsewhere, 3 has clip 1's pixels and condition, 6 has clip 2's."""
FILTERS: dict[str, Entry] = {
    "agreement": {"kind": "agreement", "critic": "segmenter", "quantile": 0.0},
    "vae_seq": {"kind": "vae_seq", "critic": "vae", "score_only": True},
    "similarity": {"kind": "similarity", "critic": "vae", "threshold": 99.999},
}


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 frames (N, T, H, W, 1) of a bright square on noise, drifting, and its masks (N, T, H, W)."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, FRAMES, SIDE, SIDE), np.uint8)
    for clip in range(count):
        for frame in range(FRAMES):
            top, left = 1 + clip % 3, 1 + clip // 3 + frame
            masks[clip, frame, top : top + 6, left : left + 6] = 1
    frames = rng.integers(20, 60, masks.shape) + 150 * masks.astype(int)
    return frames.astype(np.uint8)[..., None], masks


@pytest.fixture(scope="module")
def critics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on other clips of the same kind, and saved."""
    folder = tmp_path_factory.mktemp("critics")
    frames, masks = squares(9, seed=1)
    ids = tuple(map(str, range(9)))
    clips = MemoryClips(ClipBatch(ids, to_float(torch.tensor(frames)).movedim(4, 2), Condition(ids, torch.tensor(masks))))
    train = TrainParams(steps=60, batch_size=4, learning_rate=5e-3, ema_decay=0.9)
    looks = segmenter.fit(segmenter.Params(dims=2, filters=[4, 8, 16], train=train), clips, NoStates(), seed=1)
    codec = vae.fit(vae.Params(channels=[4, 8], norm_groups=2, train=train), clips, NoStates(), seed=1)
    # its own bar lies where clips it saw in other places fall on both sides: the chain's tests need clear cases
    looks = replace(looks, facts={**looks.facts, "calibration": [0.7, 0.9]})
    save_checkpoint(folder / "segmenter", looks, fingerprint="f", trained_on={})
    save_checkpoint(folder / "vae", codec, fingerprint="f", trained_on={})
    return folder


@dataclass(frozen=True)
class Set:
    """A synthetic set of seven clips in shards of three."""

    clips: Path
    critics: Path
    out: Path

    def score(self, filters: dict[str, Entry]) -> None:
        for name, entry in filters.items():
            for shard in shards_of(self.clips):
                score_shard(self.clips, shard, name, entry, self.critics, self.out)

    def curate(self, filters: dict[str, Entry]) -> dict[str, Any]:
        self.score(filters)
        summary = run_chain(self.clips, filters, self.critics, self.out)
        clear_evidence(self.out)
        return summary

    def decisions(self, name: str) -> dict[int, Decision]:
        """One filter's, by the clip's number."""
        return {int(one.clip_id, 16): one for one in read_table(self.out / "decisions.parquet", Decision) if one.filter == name}

    def accepted(self) -> list[int]:
        """Rows no filter dropped."""
        return accepted(ClipStore.open(self.clips / "clips.zarr").ids, read_table(self.out / "decisions.parquet", Decision))

    def evidence(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of writing of every file of evidence."""
        root = self.out / ".evidence"
        files = sorted(root.rglob("*.safetensors"))
        return {str(file.relative_to(root)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def made(folder: Path, critics: Path) -> Set:
    frames, masks = squares(CLIPS, seed=2)
    for copy, original in ((COPY, 1), (MISPLACED_COPY, MISPLACED)):
        frames[copy], masks[copy] = frames[original], masks[original]
    for row in (MISPLACED, MISPLACED_COPY):
        masks[row] = masks[row, :, ::-1]
    store = ClipStore.create(folder / "set/clips.zarr", {"frames": ArraySpec(frames.shape[1:], "uint8"),
                                                         "masks": ArraySpec(masks.shape[1:], "uint8")}, 3, "made")
    ids = [f"{row:032x}" for row in range(CLIPS)]
    for shard in range(3):
        rows = slice(3 * shard, 3 * shard + 3)
        store.write_shard(shard, ids[rows], {"frames": frames[rows], "masks": masks[rows]})
    store.finish(CLIPS)
    names = {COPY: "condition1", MISPLACED_COPY: f"condition{MISPLACED}"}
    plan = [PlanRecord(clip, "abb"[row % 3], "", names.get(row, f"condition{row}"), row, 0, row, row // 3)
            for row, clip in enumerate(ids)]
    write_table(folder / "set/plan.parquet", plan, PlanRecord)
    return Set(folder / "set", critics, folder / "decisions")


@pytest.fixture
def synthetic(tmp_path: Path, critics: Path) -> Set:
    return made(tmp_path, critics)


def test_every_filter_judges_its_predecessors_survivors(synthetic: Set) -> None:
    summary = synthetic.curate(FILTERS)
    asked, static, like = (synthetic.decisions(name) for name in FILTERS)
    assert list(asked) == list(range(CLIPS))
    assert [row for row, one in asked.items() if not one.keep] == [MISPLACED, MISPLACED_COPY]
    assert list(static) == list(like) == [0, 1, 3, 4, 5]  # those dropped are not judged again
    assert [row for row, one in like.items() if not one.keep] == [COPY]
    assert synthetic.accepted() == [0, 1, 4, 5]
    assert {name: (step["in"], step["out"]) for name, step in summary["filters"].items()} == {
        "agreement": (7, 5), "vae_seq": (5, 5), "similarity": (5, 4),
    }  # fmt: skip
    assert all(one.threshold and one.reason for group in (asked, static, like) for one in group.values())
    assert all(one.filter == name for name in FILTERS for one in synthetic.decisions(name).values())


def test_the_order_of_the_chain_decides_who_is_judged(synthetic: Set) -> None:
    synthetic.curate({name: FILTERS[name] for name in ("similarity", "agreement")})
    like, asked = synthetic.decisions("similarity"), synthetic.decisions("agreement")
    assert [row for row, one in like.items() if not one.keep] == [COPY, MISPLACED_COPY]
    assert list(asked) == [0, 1, 2, 4, 5]


def test_score_only_keeps_everything_and_says_what_would_go(synthetic: Set) -> None:
    only = {name: {**entry, "score_only": True} for name, entry in FILTERS.items()}
    summary = synthetic.curate(only)
    assert len(synthetic.accepted()) == CLIPS
    assert summary["filters"]["agreement"]["would_drop"] == 2 and summary["filters"]["similarity"]["would_drop"] == 2
    reason = synthetic.decisions("agreement")[MISPLACED].reason
    assert reason.startswith("score only (would be dropped: a real-data segmenter finds")
    free = synthetic.decisions("vae_seq")
    judged = made(synthetic.out.parent / "again", synthetic.critics)
    judged.curate({"vae_seq": {**FILTERS["vae_seq"], "score_only": False}})
    strict = judged.decisions("vae_seq")
    assert [one.score for one in free.values()] == [one.score for one in strict.values()]
    dropped = [row for row, one in strict.items() if not one.keep]
    assert dropped and dropped == [row for row, one in free.items() if one.reason.startswith("score only")]


def test_tables_hold_a_row_for_every_verdict(synthetic: Set) -> None:
    summary = synthetic.curate(FILTERS)
    scores = read_table(synthetic.out / "scores.parquet", ScoreRecord)
    decisions = read_table(synthetic.out / "decisions.parquet", Decision)
    assert scores == [ScoreRecord(one.clip_id, one.filter, one.score) for one in decisions]
    assert len(decisions) == 7 + 5 + 5
    assert read_json(synthetic.out / "summary.json") == summary
    assert sorted(path.name for path in synthetic.out.iterdir()) == ["decisions.parquet", "scores.parquet", "summary.json"]


def test_conditions_are_counted_and_emptied_ones_are_told(synthetic: Set, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        summary = synthetic.curate(FILTERS)
    assert summary["conditions"]["condition1"] == {"in": 2, "out": 1}
    assert summary["conditions"]["condition2"] == {"in": 2, "out": 0}
    assert summary["conditions_emptied"] == 1
    assert summary["filters"]["agreement"]["conditions_emptied"] == ["condition2"]
    assert "filter agreement leaves 1 conditions without a clip: condition2" in caplog.text


def test_classes_are_counted_and_a_class_that_goes_is_told(synthetic: Set, caplog: pytest.LogCaptureFixture) -> None:
    plan = read_table(synthetic.clips / "plan.parquet", PlanRecord)
    gone = [replace(one, label="rare" if row in (MISPLACED, MISPLACED_COPY) else "common") for row, one in enumerate(plan)]
    write_table(synthetic.clips / "plan.parquet", gone, PlanRecord)
    with caplog.at_level(logging.WARNING):
        summary = synthetic.curate(FILTERS)
    assert summary["classes"] == {"common": {"in": 5, "out": 4}, "rare": {"in": 2, "out": 0}}
    assert "filter agreement drops 2 of 2 clips of class rare, which is all of them" in caplog.text
    assert "of class common" not in caplog.text


def test_parts_of_the_chain_decide_as_a_chain_of_their_own(synthetic: Set, tmp_path: Path) -> None:
    synthetic.score(FILTERS)
    run_chain(synthetic.clips, FILTERS, synthetic.critics, synthetic.out)
    whole = (synthetic.out / "decisions.parquet").read_bytes()
    parts: list[list[str]] = [[], ["similarity"], ["agreement", "similarity"]]
    for part in parts:
        run_chain(synthetic.clips, FILTERS, synthetic.critics, synthetic.out, part)
        alone = made(tmp_path / "-".join(["alone", *part]), synthetic.critics)
        alone.curate({name: FILTERS[name] for name in part})
        found = read_table(chain_folder(synthetic.out, part) / "decisions.parquet", Decision)
        assert found == read_table(alone.out / "decisions.parquet", Decision)
    assert (synthetic.out / "decisions.parquet").read_bytes() == whole


def test_finished_evidence_is_kept_and_broken_or_foreign_is_made_again(synthetic: Set) -> None:
    filters = {name: FILTERS[name] for name in ("agreement", "similarity")}
    synthetic.score(filters)
    first = synthetic.evidence()
    assert len(first) == 6
    synthetic.score(filters)
    assert synthetic.evidence() == first
    torn = synthetic.out / ".evidence/similarity/00001.safetensors"
    torn.write_bytes(first["similarity/00001.safetensors"][0][:-7])
    stricter = {**filters, "agreement": {**filters["agreement"], "quantile": 0.5}}
    synthetic.score(stricter)
    again = synthetic.evidence()
    changed = {name for name in first if again[name] != first[name]}
    assert changed == {"similarity/00001.safetensors", *(f"agreement/0000{shard}.safetensors" for shard in range(3))}
    assert again["similarity/00001.safetensors"][0] == first["similarity/00001.safetensors"][0]


def test_a_second_run_writes_the_same_bytes(synthetic: Set) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in synthetic.out.iterdir() if path.is_file()}

    synthetic.curate(FILTERS)
    first = content()
    synthetic.curate(FILTERS)
    assert content() == first


def test_an_empty_chain_accepts_all(synthetic: Set) -> None:
    assert synthetic.curate({})["accepted"] == CLIPS
    assert len(synthetic.accepted()) == CLIPS


def test_a_shard_without_evidence_is_named(synthetic: Set) -> None:
    score_shard(synthetic.clips, 0, "agreement", FILTERS["agreement"], synthetic.critics, synthetic.out)
    with pytest.raises(ValueError, match="shard 1 has no score by filter agreement; run `cinefab curate` again"):
        run_chain(synthetic.clips, {"agreement": FILTERS["agreement"]}, synthetic.critics, synthetic.out)


def test_a_plan_of_other_clips_is_refused(synthetic: Set) -> None:
    plan = read_table(synthetic.clips / "plan.parquet", PlanRecord)
    write_table(synthetic.clips / "plan.parquet", plan[::-1], PlanRecord)
    with pytest.raises(ValueError, match=r"does not list the clips of clips\.zarr; sample the set again"):
        synthetic.curate({})
