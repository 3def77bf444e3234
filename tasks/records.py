"""The rows of every table, keyed by `clip_id`. Parquet on disk (`tasks.tables`), one frozen dataclass a row here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
Origin = Literal["training", "held-out", "synthetic"]


@dataclass(frozen=True)
class ClipRecord:
    """One clip of the prepared data set: `manifest.parquet`, in store order (row i is clip i of the store).

    Attributes:
        clip_id: hash of the pixels and masks.
        patient: as the reader gives it; folds never cut through one.
        source: sha256 of the source file's bytes; never its name.
        first_frame, stride: the window inside the source.
        label: class of the clip, or None.
        text: what the clip shows in words, from the data set's own table; "" if it says nothing.
        annotated: whether any frame of the stored clip has a mask.
        group: near-duplicate group; patients joined by near-duplicates share one.
        split: train, val or test.
        site: where it was made, as the data set's own table says; "" if it says nothing.
    """

    clip_id: str
    patient: str
    source: str
    first_frame: int
    stride: int
    label: str | None
    text: str
    annotated: bool
    group: int
    split: Split
    site: str = ""


@dataclass(frozen=True)
class QuarantineRecord:
    """One input that was refused: `quarantine.parquet`. `file` is the sha256 of its bytes, as
    `ClipRecord.source`, for names may be those of people; `cinefab source` finds it."""

    file: str
    reason: str


@dataclass(frozen=True)
class ConditionRecord:
    """One condition of the bank: `conditions.parquet`, in store order. `patients` are all whose clips went into it;
    of one made from an image beside the data set, `clips` is empty and the patient `outside:COLLECTION:NAME`.

    `label` and `text` are asked for too, if the bank is one of whole clips or of stills.
    """

    condition_id: str
    patients: list[str]
    clips: list[str]
    label: str | None
    text: str


@dataclass(frozen=True)
class PlanRecord:
    """One clip to be sampled: `plan.parquet`, written before anything runs.

    `clip_id` hashes everything that decides the pixels: checkpoint digest, condition id, seed, sampling options. `label` and
    `text` are those of the condition.
    """

    clip_id: str
    label: str | None
    text: str
    condition_id: str
    condition_row: int
    draw: int
    seed: int
    shard: int


@dataclass(frozen=True)
class ProvenanceRecord:
    """How one synthetic clip came to be: `provenance.parquet`. Enough to make the same pixels again.

    Attributes:
        digest: hash of the pixels.
        sampling, draws: JSON: the sampling options and what was drawn per clip (SF-VD: gamma).
        patients: those of the condition; a synthetic clip may never meet them in a test set.
        label, text: what was asked for; None and "" if nothing was.
    """

    clip_id: str
    label: str | None
    text: str
    digest: str
    generator: str
    checkpoint_digest: str
    condition_id: str
    patients: list[str]
    draw: int
    seed: int
    sampling: str
    draws: str
    params_digest: str


@dataclass(frozen=True)
class AuditRecord:
    """What one synthetic clip looks like among real ones: `audit.parquet`. Similarities are correlations, 1 for a copy.

    Attributes:
        nearest, patient: the likest training clip that this one may be called a copy of, and whose it is; None without any.
        similarity: to that clip.
        held_out, held_out_similarity: the likest clip of a patient that nothing was trained on.
        ratio: distance to the training clip over distance to the held-out one; below 1 the training clip is nearer.
        own_similarity: to the likest training clip behind its own condition (same patients and near-duplicates of them).
        own_after_first: the same without the synthetic clip's first frame, which a clip made of a still has from its condition.
        near_copy: whether `similarity` is one that held-out clips do not reach.
    """

    clip_id: str
    condition_id: str
    nearest: str | None
    patient: str | None
    similarity: float | None
    held_out: str | None
    held_out_similarity: float | None
    ratio: float | None
    own_similarity: float | None
    own_after_first: float | None
    near_copy: bool


@dataclass(frozen=True)
class MapRecord:
    """One clip's place in a map of features: `map.parquet`. Only neighbours mean anything; the axes have no unit."""

    clip_id: str
    origin: Origin
    x: float
    y: float


@dataclass(frozen=True)
class ScoreRecord:
    """One filter's number for one clip: `scores.parquet`."""

    clip_id: str
    filter: str
    score: float


@dataclass(frozen=True)
class Decision:
    """One filter's verdict on one clip: `decisions.parquet`, append-only. A score-only filter keeps everything and says so."""

    clip_id: str
    filter: str
    keep: bool
    score: float
    threshold: str
    reason: str


def accepted(ids: Sequence[str], decisions: Sequence[Decision]) -> list[int]:
    """Positions of the clips that no filter dropped; an empty chain drops none.

    Raises:
        ValueError: if the decisions are not about these clips, all of them.
    """
    judged = {decision.clip_id for decision in decisions}
    if judged and judged != set(ids):
        raise ValueError(
            f"decisions: {len(set(ids) - judged)} of {len(ids)} sampled clips have none, {len(judged - set(ids))} judged clips "
            "do not exist; run `cinefab curate` for this set again"
        )
    dropped = {decision.clip_id for decision in decisions if not decision.keep}
    return [row for row, clip_id in enumerate(ids) if clip_id not in dropped]


@dataclass(frozen=True)
class EvaluationRecord:
    """One test clip's metrics for one label of one benchmark run: `runs.parquet`. NaN where a metric is undefined.

    Attributes:
        label: name of the class, or "mean" for the mean over the classes the clip shows.
        hausdorff, g2re, r2ge: pixels.
        one_sided_frames: frames where the class is in the annotation or in the result alone.
    """

    arm: str
    network: str
    seed: int
    clip_id: str
    patient: str
    label: str
    dice: float
    sensitivity: float
    precision: float
    hausdorff: float
    g2re: float
    r2ge: float
    one_sided_frames: int


@dataclass(frozen=True)
class ClassificationRecord:
    """One test clip's class probabilities in one run of the classification benchmark: `runs.parquet`.

    Attributes:
        truth: its label.
        classes, probabilities: of every class, in the same order.
        video: stands for the file the clip was cut from.
    """

    arm: str
    network: str
    seed: int
    clip_id: str
    patient: str
    truth: str
    classes: list[str]
    probabilities: list[float]
    video: str = ""


@dataclass(frozen=True)
class ShardRecord:
    """What makes a shard exist: written last, by rename. Without it the shard's bytes mean nothing.

    Attributes:
        fingerprint: of parameters, inputs and code that made it; a shard with another one is made again.
        ids: clip ids in row order.
        digests: hash of each clip's arrays, same order.
        files: sha256 of each shard file by its path inside the store.
    """

    shard: int
    fingerprint: str
    ids: list[str]
    digests: list[str]
    files: dict[str, str]
