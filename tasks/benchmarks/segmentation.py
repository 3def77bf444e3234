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
from models.trainer import Loss, TrainParams, TrainState, fit
from tasks.benchmarks import Outcome, Run
from tasks.devices import visible_devices
from tasks.metrics.segmentation import METRICS, clip_metrics
from tasks.params import ArmParams, BenchmarkParams
from tasks.records import ClipRecord, Decision, EvaluationRecord, ProvenanceRecord, accepted
from tasks.store import ClipStore
from tasks.tables import read_json, read_table

EVALUATED_TOGETHER = 16
"""Test clips in memory at a time."""


class _NoStates:
    """A run is short and done again when killed; see `tasks.benchmark` for what is kept."""

    def load(self, phase: str) -> TrainState | None:
        return None

    def save(self, phase: str, state: TrainState) -> None:
        pass


def evaluate(run: Run, benchmark: BenchmarkParams, prepared: Path, synthetic: Path | None, decisions: Path | None) -> Outcome:
    """Train `run.network` on `run.arm` and score it on every annotated clip of the test split; see `Benchmark`."""
    arm, network = benchmark.arms[run.arm], benchmark.networks[run.network]
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
    fake = _synthetic_clips(synthetic, decisions) if synthetic is not None else None
    facts = {"real_clips": len(real or ()), "synthetic_clips": len(fake or ()), "test_clips": len(test)}
    if fake is not None and len(fake) == 0:
        return Outcome([], [], facts)

    # The arm is not among the parts: all arms of a seed start from the same weights.
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(run.seed, "initial weights", run.network))
        net = Segmenter(kind=network.kind, dims=network.dims, channels=store.arrays["frames"].shape[-1], classes=len(classes),
                        filters=network.filters)
    losses: list[float] = []
    for phase, sources, params in _phases(arm, real, fake, network.train):
        name = " ".join((run.arm, run.network, str(run.seed), phase)).strip()
        losses += fit(net, _loss(sources, arm, params.batch_size), params, phase=name, seed=run.seed, hook=_NoStates())
    return Outcome(list(_score(net, store, records, test, classes, run, benchmark)), losses, facts)


def refuse_leak(records: Sequence[ClipRecord], synthetic: Path | None) -> None:
    """Nothing trained on may come from a test patient: not a training clip, nor the mask of any synthetic one.

    Args:
        synthetic: folder of a set; all its clips are checked, whether the chain kept them or not.

    Raises:
        ValueError: naming the patients, or the near-duplicate groups, on both sides.
    """
    test = {record.patient for record in records if record.split == "test"}
    train = {record.patient for record in records if record.split == "train"}
    groups = [{record.group for record in records if record.split == split} for split in ("train", "test")]
    asked = {patient for record in read_table(synthetic / "provenance.parquet", ProvenanceRecord)
             for patient in record.patients} if synthetic else set()
    for what, shared in (
        ("training and test patients", test & train),
        ("near-duplicate groups of training and test clips", groups[0] & groups[1]),
        (f"patients behind the masks of {synthetic} and test patients", test & asked),
    ):
        if shared:
            names = ", ".join(sorted(map(str, shared))[:5])
            raise ValueError(f"leak: {what} share {names} ({len(shared)} in all); prepare and sample again from one split")


def _real_clips(store: ClipStore, records: Sequence[ClipRecord]) -> ClipSource:
    rows = [row for row, record in enumerate(records) if record.split == "train" and record.annotated]
    if not rows:
        raise ValueError("dataset: the training split has no annotated clip; raise annotated_patients or drop the real arms")
    return store.subset(rows)


def _synthetic_clips(synthetic: Path, decisions: Path | None) -> ClipSource:
    """The set's clips, in store order, without those any filter dropped when `decisions` is given; maybe none."""
    store = ClipStore.open(synthetic / "clips.zarr")
    return store.subset(accepted(store.ids, read_table(decisions / "decisions.parquet", Decision) if decisions else []))


def _phases(arm: ArmParams, real: ClipSource | None, fake: ClipSource | None,
            train: TrainParams) -> list[tuple[str, list[tuple[ClipSource, float]], TrainParams]]:
    """(name, sources with their shares of a batch, training) of each phase; the steps of all add up to `train.steps`.

    Finetuned: the first half on synthetic clips, the rest on real ones, each with its own warm-up and decay.
    """
    if arm.schedule == "finetuned" and real is not None and fake is not None:
        first = train.steps // 2
        if first == 0:
            raise ValueError(f"train.steps: {train.steps} cannot be divided in two phases; give finetuned arms at least 2")
        halves = (first, train.steps - first)
        return [(name, [(source, 1.0)], train.model_copy(update={"steps": steps}))
                for name, source, steps in zip(("synthetic", "real"), (fake, real), halves, strict=True)]
    if real is not None and fake is not None:
        return [("", [(real, 1 - arm.synthetic_share), (fake, arm.synthetic_share)], train)]
    return [("", [(source, 1.0) for source in (real, fake) if source is not None], train)]


def _loss(sources: list[tuple[ClipSource, float]], arm: ArmParams, batch: int) -> Loss:
    """One step's loss: each clip of the batch picks its source by the shares, then any clip of it."""
    shares = torch.tensor([share for _, share in sources])

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        picks = torch.multinomial(shares, batch, replacement=True, generator=rng)
        places = torch.rand(batch, generator=rng)
        parts = [source.read((places[picks == number] * len(source)).long().tolist())
                 for number, (source, _) in enumerate(sources) if bool((picks == number).any())]
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
