"""Segmentation of held-out patients: does a network learn more with synthetic clips than without?

Every arm gets the same number of steps of the same batch from the same initial weights; nothing is chosen on the test
split, which is looked at once, after the last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.augment import augment
from models.clip import ClipSource
from models.seeding import derive_seed
from models.segmenters import Segmenter, segment, segmentation_loss
from models.trainer import Loss, fit
from tasks import comparisons
from tasks.arms import NoStates, Sources, draw, phases, refuse_leak, synthetic_clips
from tasks.benchmarks import Conclusion, Outcome, Run
from tasks.devices import visible_devices
from tasks.metrics.segmentation import MEAN, METRICS, clip_metrics
from tasks.params import ArmParams, BenchmarkParams, NetworkParams
from tasks.records import ClipRecord, EvaluationRecord
from tasks.store import ClipStore
from tasks.tables import read_json, read_table

EVALUATED_TOGETHER = 16
"""Test clips in memory at a time."""


ROW = EvaluationRecord


def conclude(rows: Sequence[EvaluationRecord], benchmark: BenchmarkParams) -> Conclusion:
    """See `tasks.comparisons`."""
    metrics = comparisons.summaries(rows, benchmark)
    compared = comparisons.compare(rows, metrics, benchmark)
    return Conclusion(metrics, compared, comparisons.verdict(metrics, compared, benchmark))


def headline(rows: Sequence[EvaluationRecord]) -> dict[str, float | None]:
    """Mean Dice over test clips."""
    whole = [row.dice for row in rows if row.label == MEAN]
    return {"dice": sum(whole) / len(whole) if whole else None}


def evaluate(run: Run, benchmark: BenchmarkParams, prepared: Path, synthetic: Path | None, decisions: Path | None) -> Outcome:
    """Train `run.network` on `run.arm` and score it on every annotated clip of the test split; see `Benchmark`."""
    arm, network = benchmark.arms[run.arm], benchmark.networks[run.network]
    assert isinstance(network, NetworkParams)  # BenchmarkParams sees to it
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    classes: list[str] = read_json(prepared / "summary.json")["classes"]
    if not classes:
        raise ValueError("dataset.classes: the segmentation benchmark needs at least one class; name the mask values 1..K")
    refuse_leak(records, synthetic)
    store = ClipStore.open(prepared / "clips.zarr")
    test = [row for row, record in enumerate(records) if record.split == "test" and record.annotated]
    if not test:
        raise ValueError("dataset: the test split has no annotated clip; the segmentation benchmark cannot score anything")
    real = _real_clips(store, records) if arm.real else None
    fake = synthetic_clips(synthetic, decisions) if synthetic is not None else None
    facts = {"real_clips": len(real or ()), "synthetic_clips": len(fake or ()), "test_clips": len(test)}
    if fake is not None and len(fake) == 0:
        return Outcome([], [], facts)

    # The arm is not among the parts: all arms of a seed start from the same weights.
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(run.seed, "initial weights", run.network))
        net = Segmenter(kind=network.kind, dims=network.dims, channels=store.arrays["frames"].shape[-1], classes=len(classes),
                        filters=network.filters)
    losses: list[float] = []
    for phase, sources, params in phases(arm, real, fake, network.train):
        name = " ".join((run.arm, run.network, str(run.seed), phase)).strip()
        losses += fit(net, _loss(sources, arm, params.batch_size), params, phase=name, seed=run.seed, hook=NoStates())
    return Outcome(list(_score(net, store, records, test, classes, run, benchmark)), losses, facts)


def _real_clips(store: ClipStore, records: Sequence[ClipRecord]) -> ClipSource:
    rows = [row for row, record in enumerate(records) if record.split == "train" and record.annotated]
    if not rows:
        raise ValueError("dataset: the training split has no annotated clip; raise annotated_patients or drop the real arms")
    return store.subset(rows)


def _loss(sources: Sources, arm: ArmParams, batch: int) -> Loss:
    """See `tasks.arms.draw` for what a step sees."""

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        parts = list(draw(sources, batch, rng))
        device = next(net.parameters()).device
        frames = torch.cat([part.frames for part in parts]).to(device)
        masks = torch.cat([part.condition.masks for part in parts]).to(device)
        if arm.geometric:
            frames, masks = augment(frames, masks, rng)
        return segmentation_loss(net(frames), masks)

    return loss


def _score(net: Segmenter, store: ClipStore, records: Sequence[ClipRecord], rows: Sequence[int], classes: Sequence[str],
           run: Run, benchmark: BenchmarkParams) -> Iterator[EvaluationRecord]:
    device = visible_devices()[0]
    net.to(device)
    for start in range(0, len(rows), EVALUATED_TOGETHER):
        part = rows[start : start + EVALUATED_TOGETHER]
        clips = store.read(part)
        results = segment(net, clips.frames.to(device), benchmark.networks[run.network].train.batch_size).cpu().numpy()
        for row, clip_id, result, truth in zip(part, clips.ids, results, clips.condition.masks.numpy(), strict=True):
            table = clip_metrics(result, truth, classes, distance_on=benchmark.distance_on,
                                 empty_distance=benchmark.empty_distance)
            for label, values in table.items():
                yield EvaluationRecord(run.arm, run.network, run.seed, clip_id, records[row].patient, label,
                                       one_sided_frames=int(values["one_sided_frames"]),
                                       **{metric: values[metric] for metric in METRICS})
