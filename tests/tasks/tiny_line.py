"""A tiny but complete data folder, as the line leaves it, written by the line's own stores, tables and statistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from diffusers import UNet2DModel

from models.generators import Checkpoint
from models.trainer import TrainParams
from tasks.audit import audit
from tasks.checkpoints import save_checkpoint
from tasks.comparisons import compare, summaries, verdict
from tasks.condition import make_conditions
from tasks.params import (
    ArmParams,
    AuditParams,
    BenchmarkParams,
    DatasetParams,
    NetworkParams,
    Params,
    ReleaseParams,
    SampleParams,
    SplitParams,
)
from tasks.records import ClipRecord, ConditionRecord, Decision, EvaluationRecord, ProvenanceRecord, QuarantineRecord
from tasks.store import ArraySpec, ClipStore, clip_digest
from tasks.tables import read_table, write_json, write_table

FRAMES, SIDE = 6, 32
SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
SAMPLED = 10
DUPLICATES, WRONG = (3, 7), 5
"""Sampled clips that the filters `similarity` and `agreement` drop."""
KEPT = [row for row in range(SAMPLED) if row not in (*DUPLICATES, WRONG)]


def params(simulated: bool = True, licence: str = "made here") -> Params:
    """As params.yaml would give them; `model_construct`, since no plug-in is loaded or checked here."""
    train = TrainParams(steps=10, batch_size=2)
    sampling = {"order": "bisection", "gamma": [0, 15]}
    return Params.model_construct(
        seed=7,
        dataset=DatasetParams(
            name="fluoroscopy_phantom" if simulated else "hippocampus_mri",
            reader="phantom",
            location=Path("/some/where/phantom.py"),
            simulated=simulated,
            licence=licence,
            classes=["wire", "tip <b>bold</b>"],
            clip_frames=FRAMES,
            frame_size=(SIDE, SIDE),
            split=SplitParams(train=0.5, val=0.2, test=0.3),
        ),
        conditions={"kind": "masks", "count": 5},
        generators={"sfvd": {"kind": "sfvd", "prediction": "epsilon", "scene": {"train": {"steps": 30, "batch_size": 4}}}},
        critics={"look": {"kind": "vae", "channels": [8]}},
        samples={
            "sfvd": SampleParams(generator="sfvd", clips=SAMPLED, sampling=sampling),
            "no_consistency": SampleParams(generator="sfvd", clips=SAMPLED, sampling={**sampling, "order": "chronological"}),
        },
        filters={"similarity": {"kind": "similarity", "critic": "look"}, "agreement": {"kind": "agreement", "critic": "look"}},
        audit=AuditParams(refuse=False),  # the tiny sets show the training clips' own scenes
        benchmark=BenchmarkParams(
            arms={
                "real": ArmParams(real=True),
                "geometric": ArmParams(real=True, geometric=True),
                "mixed": ArmParams(real=True, geometric=True, synthetic="sfvd"),
                "mixed_no_consistency": ArmParams(real=True, geometric=True, synthetic="no_consistency"),
            },
            baseline="geometric",
            networks={kind: NetworkParams(kind=kind, dims=2, train=train) for kind in ("vnet", "dynunet")},
            seeds=[1, 2],
            bootstrap=200,
        ),
        release=ReleaseParams(name="tiny-wires", version="v1", source="sfvd", shard_clips=4),
    )


def build(data: Path, tree: Params) -> None:
    """Write every folder but release and reports."""
    rng = np.random.default_rng(0)
    _prepared(data / "prepared", tree, rng)
    make_conditions(tree.conditions, tree.seed, data / "prepared", data / "conditions")
    _checkpoints(data, rng)
    for name in tree.samples:
        _sampled(data, name, tree, rng)
        _decided(data, name)
    made, audited = (data / stage / tree.release.source for stage in ("clips", "audit"))
    audit(data / "prepared", data / "conditions", data / "checkpoints" / "sfvd", made, audited)
    _benchmark(data / "benchmark", tree, rng)


def scene(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 1) and masks (T, H, W): a wire and its tip swaying over a noisy ground."""
    time, y, x = np.mgrid[:FRAMES, :SIDE, :SIDE]
    middle = 10 + number % 8 + 3 * np.sin(time / 2) + 3 * np.sin(y / 6 + number)
    wire = (np.abs(x - middle) <= 1.2) & (y > 5)
    masks = np.where(wire, np.where(y > SIDE - 8, 2, 1), 0).astype(np.uint8)
    light = 150 + 40 * np.sin((x + y) / 9 + number) + 12 * rng.standard_normal(x.shape) - 70 * wire
    return light.clip(0, 255).astype(np.uint8)[..., None], masks


def store(path: Path, ids: list[str], frames: np.ndarray, masks: np.ndarray) -> ClipStore:
    arrays = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec(masks.shape[1:], "uint8")}
    written = ClipStore.create(path, arrays, 4, "made")
    for shard, start in enumerate(range(0, len(ids), 4)):
        part = slice(start, start + 4)
        written.write_shard(shard, ids[part], {"frames": frames[part], "masks": masks[part]})
    written.finish(len(ids))
    return written


def synthetic(folder: Path, frames: np.ndarray, conditions: list[str]) -> None:
    """A set of these clips (N, T, H, W, C), asked for by these conditions."""
    ids = [f"{row:032x}" for row in range(len(frames))]
    made = store(folder / "clips.zarr", ids, frames, np.zeros(frames.shape[:4], np.uint8))
    rows = [ProvenanceRecord(clip, None, "", digest, "sfvd", "c" * 32, condition, [], 0, 0, "{}", "{}", "p" * 32)
            for clip, digest, condition in zip(ids, made.digests, conditions, strict=True)]
    write_table(folder / "provenance.parquet", rows, ProvenanceRecord)


def _prepared(folder: Path, tree: Params, rng: np.random.Generator) -> None:
    clips = [scene(number, rng) for number in range(len(SPLITS))]
    frames, masks = (np.stack(one) for one in zip(*clips, strict=True))
    masks[5] = 255  # a training clip that nobody annotated
    ids = [clip_digest({"frames": one, "masks": mask}) for one, mask in zip(frames, masks, strict=True)]
    store(folder / "clips.zarr", ids, frames, masks)
    rows = [
        ClipRecord(clip_id, f"patient{row:02d}", f"{row:064x}", 0, 1, None, "", row != 5, row, split)  # type: ignore[arg-type]
        for row, (clip_id, split) in enumerate(zip(ids, SPLITS, strict=True))
    ]
    write_table(folder / "manifest.parquet", rows, ClipRecord)
    refused = [QuarantineRecord("<script>alert(1)</script>.mp4", "truncated: 3 of 90 frames & nothing more")]
    write_table(folder / "quarantine.parquet", refused, QuarantineRecord)
    write_json(folder / "summary.json", {"clips": len(ids), "sources": 13, "sources_used": 12,
                                           "scaling": {"window": [0.5, 99.5], "fit": "pad"}})


def _checkpoints(data: Path, rng: np.random.Generator) -> None:
    net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
                      layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    for folder, phases in (("checkpoints/sfvd", ("scene", "motion")), ("critics/look", ("vae",))):
        losses = {phase: (np.exp(-np.arange(300) / 80) + 0.1 + 0.05 * rng.random(300)).tolist() for phase in phases}
        checkpoint = Checkpoint("sfvd", {}, {phases[0]: net}, {"clip_shape": [FRAMES, 1, SIDE, SIDE]}, losses)
        save_checkpoint(data / folder, checkpoint, fingerprint="f", trained_on={"split": "train"})


def _sampled(data: Path, name: str, tree: Params, rng: np.random.Generator) -> None:
    bank = read_table(data / "conditions" / "conditions.parquet", ConditionRecord)
    masks = ClipStore.open(data / "conditions" / "bank.zarr").load([row % len(bank) for row in range(SAMPLED)])["masks"]
    frames = np.stack([scene(row % len(bank), rng)[0] for row in range(SAMPLED)])
    frames = np.where(masks[..., None] == 1, frames // 2, frames).astype(np.uint8)
    ids = [clip_digest({"name": np.array([len(name), row])}) for row in range(SAMPLED)]
    out = data / "clips" / name
    made = store(out / "clips.zarr", ids, frames, masks)
    write_json(out / "plan.json", {"kind": "sfvd", "clips": SAMPLED})
    sampling, draws = json.dumps({**tree.samples[name].sampling, "steps": 20}), json.dumps({"gamma": 1.5})
    rows = [
        ProvenanceRecord(
            clip_id=clip_id, label=None, text="", digest=digest, generator="sfvd", checkpoint_digest="c" * 32,
            params_digest="p" * 32,
            condition_id=bank[row % len(bank)].condition_id, patients=bank[row % len(bank)].patients, draw=row // len(bank),
            seed=1000 + row, sampling=sampling, draws=draws,
        )
        for row, (clip_id, digest) in enumerate(zip(ids, made.digests, strict=True))
    ]
    write_table(out / "provenance.parquet", rows, ProvenanceRecord)


def _decided(data: Path, name: str) -> None:
    ids = [record.clip_id for record in read_table(data / "clips" / name / "provenance.parquet", ProvenanceRecord)]
    rows = [
        Decision(clip_id, "similarity", row not in DUPLICATES, 99.1 if row in DUPLICATES else 80.0 + row, "98",
                 "too like a kept clip" if row in DUPLICATES else "unlike every kept clip")
        for row, clip_id in enumerate(ids)
    ]
    rows += [
        Decision(clip_id, "agreement", False, 0.31, ">= 0.62", "mask not found") if row == WRONG
        else Decision(clip_id, "agreement", True, 0.8 + row / 100, ">= 0.62", "mask found")
        for row, clip_id in enumerate(ids) if row not in DUPLICATES
    ]
    write_table(data / "decisions" / name / "decisions.parquet", rows, Decision)


def _benchmark(folder: Path, tree: Params, rng: np.random.Generator) -> None:
    gains = {"real": -0.05, "geometric": 0.0, "mixed": 0.02, "mixed_no_consistency": -0.01}
    patients = rng.normal(0.8, 0.03, 12)
    rows = []
    for arm in tree.benchmark.arms:
        for network in tree.benchmark.networks:
            for seed in tree.benchmark.seeds:
                for number, base in enumerate(patients):
                    dice = float(base + gains[arm] + rng.normal(0, 0.005))
                    numbers = (dice, dice, dice, 4 * (1 - dice), 1 - dice, 1 - dice, 0)
                    rows += [EvaluationRecord(arm, network, seed, f"clip{number}", f"test{number}", label, *numbers)
                             for label in ("mean", "wire")]
    metrics = summaries(rows, tree.benchmark)
    comparisons = compare(rows, metrics, tree.benchmark)
    write_table(folder / "runs.parquet", rows, EvaluationRecord)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "comparisons.json", comparisons)
    write_json(folder / "verdict.json", verdict(metrics, comparisons, tree.benchmark))
    curve = "".join(f"{arm},{network},{seed},{step},{1 / (1 + step / 3):.4g}\n" for arm in tree.benchmark.arms
                    for network in tree.benchmark.networks for seed in tree.benchmark.seeds for step in range(1, 11))
    (folder / "curves.csv").write_text("arm,network,seed,step,loss\n" + curve)
