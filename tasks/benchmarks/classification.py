"""Classification of held-out patients' clips: does a network learn more with synthetic clips than without?

The three paradigms of Ctrl-GenAug are arms: baseline (real clips alone), real-finetune (`schedule: finetuned`) and joint-train
(`mixed`; half of every batch is synthetic, which is the paper's oversampling of real clips to the synthetic number). Every arm
gets the same number of steps of the same batch from the same initial weights, and draws classes equally often unless it says
`balanced: false`: otherwise a rare class is hardly seen by the real arms, and synthetic clips would gain by their even classes
alone, which costs no generator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import mixing
from models.augment import BASIC, DEFAULT, ELASTIC, augment
from models.classifiers import Classifier, classify
from models.clip import ClipBatch
from models.rand_augment import rand_augment
from models.seeding import derive_seed
from models.trainer import Loss, fit
from tasks import class_comparisons
from tasks.arms import NoStates, Sources, draw, phases, refuse_leak, synthetic_clips
from tasks.benchmarks import Conclusion, Outcome, Run
from tasks.described import Described
from tasks.devices import visible_devices
from tasks.params import ArmParams, BenchmarkParams, ClassifierParams
from tasks.records import ClassificationRecord, ClipRecord
from tasks.store import ClipStore
from tasks.tables import read_table

ROW = ClassificationRecord
EVALUATED_TOGETHER = 32
"""Test clips in memory at a time."""
PLACES = 2**16
"""Places of a turn: so many that clips are drawn evenly however many share them; few enough for the 24 bits of a draw."""
Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
MIXES: dict[str, Mix] = {"mixup": mixing.mixup, "cutmix": mixing.cutmix, "videomix": mixing.videomix}


def conclude(rows: Sequence[ClassificationRecord], benchmark: BenchmarkParams) -> Conclusion:
    """See `tasks.class_comparisons`."""
    return class_comparisons.conclude(rows, benchmark)


def headline(rows: Sequence[ClassificationRecord]) -> dict[str, float | None]:
    """Share of test clips whose likeliest class is their own, and the mean of that share over classes."""
    if not rows:
        return {"balanced_accuracy": None}
    right = defaultdict(list)
    for row in rows:
        right[row.truth].append(row.classes[int(np.argmax(row.probabilities))] == row.truth)
    return {"balanced_accuracy": sum(sum(one) / len(one) for one in right.values()) / len(right)}


def evaluate(run: Run, benchmark: BenchmarkParams, prepared: Path, synthetic: Path | None, decisions: Path | None) -> Outcome:
    """Train `run.network` on `run.arm` and let it classify every labelled clip of the test split; see `Benchmark`."""
    arm, network = benchmark.arms[run.arm], benchmark.networks[run.network]
    assert isinstance(network, ClassifierParams)  # BenchmarkParams sees to it
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    refuse_leak(records, synthetic)
    store = ClipStore.open(prepared / "clips.zarr")
    classes = _classes(records, arm)
    test = tested_rows(records, benchmark.tested_on)
    train = real_rows(records, arm, run.seed)
    real = _Turns(Described(store.subset(train), records), classes, balanced=arm.balanced) if arm.real else None
    fake = None
    if synthetic is not None:
        made = synthetic_clips(synthetic, decisions)
        if len(made) == 0:
            return Outcome([], [], {"real_clips": len(train) if arm.real else 0, "synthetic_clips": 0, "test_clips": len(test)})
        fake = _Turns(made, classes, arm.per_class, balanced=arm.balanced)
    frames, _, _, channels = store.arrays["frames"].shape

    # The arm is not among the parts: all arms of a seed start from the same weights.
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(run.seed, "initial weights", run.network))
        net = Classifier(network.kind, channels, len(classes), frames, network.width)
    losses: list[float] = []
    for phase, sources, params in phases(arm, real, fake, network.train):
        name = " ".join((run.arm, run.network, str(run.seed), phase)).strip()
        losses += fit(net, _loss(sources, arm, classes, params.batch_size), params, phase=name, seed=run.seed, hook=NoStates())
    facts = {"real_clips": len(real.ids) if real else 0, "synthetic_clips": len(fake.ids) if fake else 0,
             "test_clips": len(test)}
    return Outcome(list(_score(net, store, records, test, classes, run)), losses, facts)


def _classes(records: Sequence[ClipRecord], arm: ArmParams) -> list[str]:
    """The labels of the training split, sorted."""
    classes = sorted({record.label for record in records if record.split == "train" and record.label})
    if len(classes) < 2:
        raise ValueError(f"dataset: the training split shows {len(classes)} classes ({', '.join(classes)}); classification "
                         "needs 2, so give dataset.options.label_column or label_from, or split otherwise")
    shown = {record.label for record in records if record.split == "test" and record.label}
    if strange := shown - set(classes):
        raise ValueError(f"dataset.split: class {', '.join(sorted(map(str, strange)))} is in the test split alone; nobody can "
                         "learn it, so split otherwise or merge classes")
    if not shown:
        raise ValueError("dataset: the test split has no labelled clip; the classification benchmark cannot score anything")
    if strange := set(arm.rare) - set(classes):
        raise ValueError(f"arms.rare: {', '.join(sorted(strange))} is not a class; choose of {', '.join(classes)}")
    return classes


def tested_rows(records: Sequence[ClipRecord], sites: Sequence[str] | None) -> list[int]:
    """Labelled clips of the test split, of these sites or of all.

    Raises:
        ValueError: if there is none.
    """
    rows = [row for row, record in enumerate(records)
            if record.split == "test" and record.label and (sites is None or record.site in sites)]
    if not rows:
        there = sorted({record.site for record in records if record.split == "test" and record.label})
        raise ValueError(f"benchmark.tested_on: no labelled test clip is of site {', '.join(sites or [])}; there are those of "
                         f"{', '.join(map(repr, there)) or 'none'}")
    return rows


def real_rows(records: Sequence[ClipRecord], arm: ArmParams, seed: int) -> list[int]:
    """Labelled training clips that the arm uses, in store order.

    `real_share` keeps whole patients (`_patients`); `rare` then keeps a share of a class's clips, one at least. Both draws
    depend on the seed, not on the arm: arms of one share see the same clips, and a smaller share is part of a larger one.
    """
    rows = [row for row, record in enumerate(records) if record.split == "train" and record.label]
    kept = _patients([records[row] for row in rows], arm.real_share, seed)
    rows = [row for row in rows if records[row].patient in kept]
    for label, share in sorted(arm.rare.items()):
        own = [row for row in rows if records[row].label == label]
        order = np.random.default_rng(derive_seed(seed, "rare", label)).permutation(own)
        left = set(order[: max(1, round(share * len(own)))].tolist())
        rows = [row for row in rows if records[row].label != label or row in left]
    return rows


def _patients(records: Sequence[ClipRecord], share: float, seed: int) -> set[str]:
    """That share of the patients, drawn evenly from those who show the same classes, and at least one for every class."""
    shown: dict[str, set[str]] = defaultdict(set)
    for record in records:
        shown[record.patient].add(str(record.label))
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, labels in sorted(shown.items()):
        alike[tuple(sorted(labels))].append(patient)
    rng = np.random.default_rng(derive_seed(seed, "real share"))
    place: dict[str, float] = {}
    for _, group in sorted(alike.items()):
        place |= zip(group, (rng.permutation(len(group)) + rng.random(len(group))) / len(group), strict=True)
    order = sorted(place, key=place.__getitem__)
    kept = order[: round(share * len(order))]
    for label in sorted(set().union(*shown.values())):
        if not any(label in shown[patient] for patient in kept):
            kept.append(next(patient for patient in order if label in shown[patient]))
    return set(kept)


class _Turns:
    """A ClipSource in which every place of `read` is a class's turn: places are spread over classes, then over their clips.

    `tasks.arms.draw` draws places evenly, and so classes evenly; not `balanced`, all clips share one turn. A class that has no
    clip is left out. `per_class` takes the first clips of each, so that a smaller dose is part of a larger one.
    """

    def __init__(self, clips: Described, classes: Sequence[str], per_class: int | None = None, *, balanced: bool) -> None:
        rows: dict[str, list[int]] = defaultdict(list)
        for row, label in enumerate(clips.labels):
            rows[label].append(row)
        if strange := set(rows) - set(classes):
            raise ValueError(f"synthetic clips of class {', '.join(sorted(map(repr, strange)))}, but the training split has "
                             f"{', '.join(classes)}; sample from a bank of labelled clips (conditions.kind: clips)")
        taken = [own[:per_class] for label in classes if (own := rows.get(label))]
        self._clips, self._turns = clips, taken if balanced else [[row for own in taken for row in own]]
        self.ids = tuple(clips.ids[row] for own in taken for row in own)

    def __len__(self) -> int:
        """Places, not clips."""
        return PLACES * len(self._turns)

    def read(self, rows: Sequence[int]) -> ClipBatch:
        turns = [(self._turns[turn], place) for turn, place in (divmod(row, PLACES) for row in rows)]
        return self._clips.read([own[place * len(own) // PLACES] for own, place in turns])


def _loss(sources: Sources, arm: ArmParams, classes: Sequence[str], batch: int) -> Loss:
    """Cross-entropy with the (mixed) classes of a batch, augmented as the arm says."""
    number: Mapping[str, int] = {label: place for place, label in enumerate(classes)}

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        parts = list(draw(sources, batch, rng))
        device = next(net.parameters()).device
        frames = torch.cat([part.frames for part in parts]).to(device)
        truth = torch.tensor([number[label] for part in parts for label in part.condition.labels], device=device)
        frames, targets = _augmented(frames, rng, arm), functional.one_hot(truth, len(classes)).float()
        if arm.mix:
            frames, targets = MIXES[arm.mix](frames, targets, rng)
        return functional.cross_entropy(net(frames).float(), targets)

    return loss


def _augmented(frames: Tensor, rng: torch.Generator, arm: ArmParams) -> Tensor:
    if arm.augment == "rand":
        return rand_augment(frames, rng)
    if not (arm.geometric or arm.augment):
        return frames
    masks = torch.zeros(frames.shape[0], frames.shape[1], *frames.shape[3:], dtype=torch.uint8, device=frames.device)
    ranges = {None: DEFAULT, "basic": BASIC, "elastic": ELASTIC}[arm.augment]
    return augment(frames, masks, rng, ranges)[0]


def _score(net: Classifier, store: ClipStore, records: Sequence[ClipRecord], rows: Sequence[int], classes: list[str],
           run: Run) -> Iterator[ClassificationRecord]:
    net.to(visible_devices()[0])
    for start in range(0, len(rows), EVALUATED_TOGETHER):
        part = rows[start : start + EVALUATED_TOGETHER]
        found = classify(net, store.read(part).frames).double().tolist()
        for row, chances in zip(part, found, strict=True):
            one = records[row]
            yield ClassificationRecord(run.arm, run.network, run.seed, one.clip_id, one.patient, str(one.label), classes,
                                       chances, one.source)
