"""Does a synthetic set copy? Every clip beside its nearest training clip and its nearest held-out patients' clip.

What is judged is the likest pair of frames of two clips in the space of `tasks.metrics.copies`, in which flips, crops and
brightness do not hide a copy. A near copy is a clip that is more like a training clip than held-out patients' real clips are,
but for a share of `FALSE_ALARMS` of them: other people's clips say how alike clips can be without anybody having copied.

A clip that was asked for with the pixels of a training clip (a still, an image prior) shows that clip because it was told
to; that is its task, not its memory. So two numbers are kept apart: how like the training clips behind its own condition it
is (their patients' clips and near-duplicates of these), with and without its first frame, and how like any other training
clip. A near copy is called by the latter alone where pixels were given, and by both where they were not: a mask or a class
is no reason to show the very picture it came from.

The distance-ratio test asks of how many clips the nearest real clip is a training clip. Both distances are the same synthetic
clip's, so that blur, which makes a clip nearer to everything, cancels; the three-sample test of Meehan et al. (AISTATS 2020)
compares distances of synthetic clips with those of real ones and would take it for copying. Unequal numbers need no clip to be
left out: were training and held-out clips as good as drawn by lot, the nearest of n + m clips would be one of the n training
clips in n / (n + m) of all cases (with n = m the share of one half that SDMetrics' DCROverfittingProtection expects).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from tasks.animation import animates
from tasks.condition import STORE
from tasks.metrics.copies import (
    Nearest,
    Question,
    details,
    distance_ratio,
    left_out_alarms,
    nearest,
    pictures,
    threshold_of,
)
from tasks.params import AuditParams
from tasks.pictures import panels, small_webp, tile
from tasks.records import AuditRecord, ClipRecord, ConditionRecord, Decision, ProvenanceRecord
from tasks.statistics import bootstrap_mean, pooled_mean
from tasks.store import ClipStore
from tasks.tables import atomic_write, read_json, read_table, write_json, write_table

FALSE_ALARMS = 0.01
"""Share of held-out clips that may be called near copies."""

READ_TOGETHER, SHOWN, FEW = 32, 6, 100
"""Clips in memory at a time; pairs in the picture; fewer held-out clips than this have no 1 % quantile worth the name."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class _Real:
    """The clips of one split."""

    store: ClipStore
    rows: list[int]
    records: list[ClipRecord]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Sequence[int]) -> Tensor:
        return pictures(self.store.load([self.rows[row] for row in rows])["frames"])


def audit(prepared: Path, conditions: Path, checkpoint: Path, clips: Path, out: Path) -> dict[str, Any]:
    """Write `audit.parquet`, a row a clip, `audit.webp`, the worst pairs, and last `audit.json`:

    - "share": {value, low, high, copies, clips, conditions} of near copies, 95 % bootstrap interval over conditions;
    - "threshold": {value, false_alarms, left_out, clips, patients, rough}; `left_out` is the share of false alarms among clips
      of a held-out patient by the other ones' threshold, `rough` says that there are too few clips for such a quantile;
    - "similarity": medians {training, held_out, real}: of synthetic clips to their nearest training and held-out clips, and of
      held-out clips to their nearest training clip;
    - "ratio": {value, closer, chance, excess, low, high}: median distance ratio, share of clips nearer to a training clip, what
      chance gives, and by how much more that is, 95 % bootstrap interval over conditions;
    - "own": {given, similarity, after_first, share, share_after_first, clips} beside the own condition's clips; None where no
      condition is from a training clip. `given` says that the generator was given their pixels;
    - "sentence" in words, "training_clips", and digests of what was compared, "clips_digest" and "prepared_digest".

    Raises:
        ValueError: without a held-out or a training clip.
    """
    (out / "audit.json").unlink(missing_ok=True)  # first, so that it never stands beside another table
    store = ClipStore.open(prepared / "clips.zarr")
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    training, held_out = (_split(store, records, split) for split in ("train", "test"))
    if not len(training) or not len(held_out):
        raise ValueError(f"audit: {len(training)} training and {len(held_out)} held-out clips; it needs some of both, so raise "
                         "dataset.split.train or dataset.split.test")
    provenance = read_table(clips / "provenance.parquet", ProvenanceRecord)
    made = ClipStore.open(clips / "clips.zarr")
    bank = {one.condition_id: one for one in read_table(conditions / "conditions.parquet", ConditionRecord)}
    own = _own(provenance, bank, training.records)
    given = _pixels_given(conditions, checkpoint, provenance)

    seen = _details(len(made), lambda rows: pictures(made.load(rows)["frames"]))
    judged = ~own if given else torch.ones_like(own)
    to_training, to_own, after_first = nearest(seen, len(training), training.read,
                                               [Question(judged), Question(own), Question(own, min(1, seen.shape[1] - 1))])
    everyone = torch.ones(len(made), len(held_out), dtype=torch.bool)
    (to_held_out,) = nearest(seen, len(held_out), held_out.read, [Question(everyone)])
    strangers = torch.ones(len(held_out), len(training), dtype=torch.bool)
    (real,) = nearest(_details(len(held_out), held_out.read), len(training), training.read, [Question(strangers)])

    unlike = real.similarity.double().numpy()
    threshold = threshold_of(unlike, FALSE_ALARMS)
    rows = _rows(provenance, training, held_out, (to_training, to_held_out, to_own, after_first), threshold)
    patients = [one.patient for one in held_out.records]
    found = {
        "share": share_of(rows),
        "threshold": {"value": threshold, "false_alarms": FALSE_ALARMS, "clips": len(held_out),
                      "patients": len(set(patients)), "rough": len(held_out) < FEW,
                      "left_out": left_out_alarms(unlike, patients, FALSE_ALARMS)},
        "similarity": {"training": _median([row.similarity for row in rows]),
                       "held_out": _median([row.held_out_similarity for row in rows]), "real": float(np.median(unlike))},
        "ratio": _ratio_test(rows, judged.sum(1).double().numpy(), len(held_out)),
        "own": _own_numbers(rows, threshold, given),
        "training_clips": len(training),
        "clips_digest": made.digest,
        "prepared_digest": store.digest,
    }
    found["sentence"] = in_words(found)
    write_table(out / "audit.parquet", rows, AuditRecord)
    atomic_write(out / "audit.webp", _worst(rows, to_training, made, training))
    write_json(out / "audit.json", found)
    return found


def _split(store: ClipStore, records: Sequence[ClipRecord], split: str) -> _Real:
    rows = [row for row, record in enumerate(records) if record.split == split]
    return _Real(store, rows, [records[row] for row in rows])


def _own(provenance: Sequence[ProvenanceRecord], bank: dict[str, ConditionRecord], training: Sequence[ClipRecord]) -> Tensor:
    """(N, M) bool: which training clips are of a synthetic clip's condition, by patient or as near-duplicates of such."""
    group = np.array([record.group for record in training])
    own = torch.zeros(len(provenance), len(training), dtype=torch.bool)
    of_condition: dict[str, Tensor] = {}
    for row, record in enumerate(provenance):
        if (known := of_condition.get(record.condition_id)) is None:
            condition = bank[record.condition_id]
            origin = [one.group for one in training if one.patient in condition.patients or one.clip_id in condition.clips]
            known = of_condition[record.condition_id] = torch.from_numpy(np.isin(group, origin))
        own[row] = known
    return own


def _pixels_given(conditions: Path, checkpoint: Path, provenance: Sequence[ProvenanceRecord]) -> bool:
    """Whether the generator saw pixels of the condition's clip: it animates stills, or was asked with an image prior."""
    if "frames" not in ClipStore.open(conditions / STORE).arrays:
        return False
    return "image" in json.loads(provenance[0].sampling).get("use", []) or animates(checkpoint)


def _details(count: int, read: Callable[[Sequence[int]], Tensor]) -> Tensor:
    parts = [range(start, min(start + READ_TOGETHER, count)) for start in range(0, count, READ_TOGETHER)]
    return torch.cat([details(read(rows)) for rows in parts])


def _rows(provenance: Sequence[ProvenanceRecord], training: _Real, held_out: _Real, found: tuple[Nearest, ...],
          threshold: float) -> list[AuditRecord]:
    to_training, to_held_out, *_ = found
    ratio = distance_ratio(*(one.similarity.double().numpy() for one in (to_training, to_held_out)))
    similar = [[None if np.isnan(value) else value for value in one.similarity.double().tolist()] for one in found]
    rows = []
    for row, record in enumerate(provenance):
        near = training.records[int(to_training.row[row])] if similar[0][row] is not None else None
        rows.append(AuditRecord(
            clip_id=record.clip_id,
            condition_id=record.condition_id,
            nearest=near.clip_id if near else None,
            patient=near.patient if near else None,
            similarity=similar[0][row],
            held_out=held_out.records[int(to_held_out.row[row])].clip_id,
            held_out_similarity=similar[1][row],
            ratio=float(ratio[row]) if near else None,
            own_similarity=similar[2][row],
            own_after_first=similar[3][row],
            near_copy=(similar[0][row] or 0) >= threshold,
        ))
    return rows


def share_of(rows: Sequence[AuditRecord]) -> dict[str, Any]:
    """Share of near copies among these clips, with a 95 % bootstrap interval over conditions: clips of one are not independent.

    Where no condition differs from another in it, a bootstrap has no width; then it is Wilson's interval of so many conditions.
    """
    copies = np.array([row.near_copy for row in rows], np.float64)
    names, index = np.unique([row.condition_id for row in rows], return_inverse=True)
    total, count = np.bincount(index, copies), np.bincount(index)
    if np.ptp(total / count) == 0:
        low, high = proportion_confint(round(copies.mean() * len(names)), len(names), method="wilson")
    else:
        drawn = pooled_mean(copies, [row.condition_id for row in rows])
        low, high = drawn.low, drawn.high
    return {"value": float(copies.mean()), "low": float(low), "high": float(high), "copies": int(copies.sum()),
            "clips": len(rows), "conditions": len(names)}


def _ratio_test(rows: Sequence[AuditRecord], training: Numbers, held_out: int) -> dict[str, Any] | None:
    """See the module; `training` has the number of clips that each synthetic one was compared with."""
    known = [place for place, row in enumerate(rows) if row.ratio is not None]
    if not known:
        return None
    ratio = np.array([rows[place].ratio for place in known], np.float64)
    closer, chance = ratio < 1, training[known] / (training[known] + held_out)
    gain = bootstrap_mean(closer - chance, [rows[place].condition_id for place in known])
    return {"value": float(np.median(ratio)), "closer": float(closer.mean()), "chance": float(chance.mean()),
            "excess": gain.mean, "low": gain.low, "high": gain.high}


def _own_numbers(rows: Sequence[AuditRecord], threshold: float, given: bool) -> dict[str, Any] | None:
    whole = np.array([row.own_similarity for row in rows if row.own_similarity is not None])
    later = np.array([row.own_after_first for row in rows if row.own_after_first is not None])
    if not whole.size:
        return None
    return {"given": given, "similarity": float(np.median(whole)), "after_first": float(np.median(later)),
            "share": float((whole >= threshold).mean()), "share_after_first": float((later >= threshold).mean()),
            "clips": len(whole)}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def in_words(found: dict[str, Any]) -> str:
    """What the numbers say, in one paragraph."""
    share, threshold, ratio, own = (found[name] for name in ("share", "threshold", "ratio", "own"))
    what = "training clips other than those of its own condition" if own and own["given"] else "training clips"
    said = [f"{share['copies']} of {share['clips']} synthetic clips ({100 * share['value']:.1f} %, 95 % CI "
            f"{100 * share['low']:.1f} to {100 * share['high']:.1f} %) are near copies of {what}: more like one, at a "
            f"correlation of {threshold['value']:.3f} or more, than {100 * (1 - threshold['false_alarms']):g} % of the "
            f"{threshold['clips']} clips of {threshold['patients']} held-out patients are."]
    if ratio:
        word = "more than" if ratio["low"] > 0 else "fewer than" if ratio["high"] < 0 else "no different from"
        said.append(f"{100 * ratio['closer']:.0f} % lie nearer to a training clip than to any held-out one, {word} the "
                    f"{100 * ratio['chance']:.0f} % that chance gives.")
    if own and own["given"]:
        said.append(f"They were made from pixels of training clips: {100 * own['share']:.0f} % are near copies of their own "
                    f"condition's clips, {100 * own['share_after_first']:.0f} % after the first frame.")
    if threshold["rough"]:
        said.append(f"With fewer than {FEW} held-out clips the threshold is rough.")
    return " ".join(said)


def _worst(rows: Sequence[AuditRecord], found: Nearest, made: ClipStore, training: _Real) -> bytes:
    """Moving picture: the clips most like a training clip, each (left) beside that clip (right), two pairs to a line."""
    order = sorted((place for place, row in enumerate(rows) if row.similarity is not None),
                   key=lambda place: (-(rows[place].similarity or 0), rows[place].clip_id))[:SHOWN]
    order = order or list(range(min(SHOWN, len(rows))))  # nothing to be compared with: the clips alone, beside themselves
    left = made.load(order)["frames"]
    known = [int(found.row[place]) for place in order]
    right = training.store.load([training.rows[row] for row in known])["frames"] if min(known) >= 0 else left
    pairs = np.stack([panels(left, most=1), panels(right, most=1)], 1)
    return small_webp(tile(pairs.reshape(-1, *pairs.shape[2:]), columns=4))


def audit_of(folder: Path, store: ClipStore) -> dict[str, Any] | None:
    """A set's `audit.json`; None where there is none, or it is of clips that have since been sampled anew."""
    if not (path := folder / "audit.json").exists():
        return None
    found = read_json(path)
    return found if found["clips_digest"] == store.digest else None


def judge_release(params: AuditParams, rows: Sequence[AuditRecord]) -> dict[str, Any]:
    """{**share, most, above, withheld, refused} of the clips that the filters accepted.

    Near copies among them are withheld, one by one. Of a whole release only the share says whether a generator copies, and the
    threshold calls a share of honest clips near copies too; so it is refused if the share is above `most` beyond doubt, that
    is with the low end of its interval: of a dozen clips one is none, and four are too many.
    """
    share = share_of(rows)
    above = share["low"] > params.most
    return {**share, "most": params.most, "above": above, "withheld": share["copies"] if params.refuse else 0,
            "refused": above and params.refuse}


def audit_decisions(rows: Sequence[AuditRecord], threshold: float) -> list[Decision]:
    """The audit as the last of the filters: near copies are not kept."""
    said = {True: "more like a training clip than held-out clips are", False: "as like training clips as held-out clips are"}
    return [Decision(row.clip_id, "audit", not row.near_copy, np.nan if row.similarity is None else row.similarity,
                     f"< {threshold:.3f}", said[row.near_copy]) for row in rows]
