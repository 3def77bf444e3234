"""Does a synthetic set show what was asked for? One number for each condition, beside what chance would give.

For clips made from a bank of whole training clips. Critics trained on real clips look at class and text; image prior and motion
are compared with the reference itself. "Chance" keeps clips and conditions and breaks their pairing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.critics import aligned, classifier
from models.generators import Checkpoint
from models.motion import optical_flow
from tasks.account import FilterAccount, read_filters
from tasks.checkpoints import load_checkpoint
from tasks.condition import STORE
from tasks.devices import first_device
from tasks.params import ControlParams
from tasks.records import Decision, PlanRecord
from tasks.statistics import bootstrap_gain, bootstrap_mean
from tasks.store import ClipStore
from tasks.tables import read_table, write_json

READ_TOGETHER = 32
"""Clips in memory at a time."""


Numbers = NDArray[np.float64]


def control(params: ControlParams, conditions: Path, critics: Path, clips: Path, decisions: Path, out: Path) -> dict[str, Any]:
    """Write `control.json` of a set: {value, chance, advantage, low, high, clips, what, filters} of "label", "text", "image",
    "motion".

    `value` is of all clips, before any filter; `advantage` is value minus chance, clip by clip, with a 95 % bootstrap interval
    over conditions. `filters` says what each filter of the chain does to the value: {before, after, gain, low, high, clips,
    kept} of the clips that reached it and of those it kept. Only what the bank and the critics allow is there; for a bank of
    masks nothing is.
    """
    plan = read_table(clips / "plan.parquet", PlanRecord)
    chain = read_filters(read_table(decisions / "decisions.parquet", Decision))
    store, bank = ClipStore.open(clips / "clips.zarr"), ClipStore.open(conditions / STORE)
    found = {}
    if "frames" in bank.arrays:
        groups = [record.condition_id for record in plan]
        for name, (what, value, chance) in _values(params, critics, store, bank, plan).items():
            found[name] = {**_summary(value, chance, groups, what),
                           "filters": {one.name: _filtered(one, value, plan) for one in chain}}
    write_json(out / "control.json", found)
    return found


def _values(params: ControlParams, critics: Path, store: ClipStore, bank: ClipStore,
            plan: Sequence[PlanRecord]) -> dict[str, tuple[str, Numbers, Numbers]]:
    """What is measured of each condition, and its (N,) values and chances, in plan order."""
    groups, labels, texts = zip(*((record.condition_id, record.label or "", record.text) for record in plan), strict=True)
    judge, reader = (load_checkpoint(critics / name, first_device()) if name else None
                     for name in (params.classifier, params.aligned))
    seen = _seen(store, bank, plan, judge, reader)
    found = {}
    if judge:
        found["label"] = ("share of clips that a real-data classifier gives the asked class",
                          *label_agreement(seen["probabilities"], judge.facts["labels"], labels))
    if reader:
        found["text"] = ("share of the other training texts that the clip is less like than the asked one",
                         *text_rank(seen["likeness"], reader.facts["texts"], texts))
    found["image"] = ("correlation of the first frame with the image prior",
                      *paired_correlation(seen["first"], seen["prior"], groups))
    found["motion"] = ("correlation of the clip's own motion with the asked motion field",
                       *paired_correlation(seen["motion"], seen["asked"], groups))
    return found


def _seen(store: ClipStore, bank: ClipStore, plan: Sequence[PlanRecord], judge: Checkpoint | None,
          reader: Checkpoint | None) -> dict[str, Tensor]:
    """What critics and optical flow see in every clip and in its reference, (N, ...) flat and in plan order."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(plan), READ_TOGETHER):
        rows = range(start, min(start + READ_TOGETHER, len(plan)))
        frames = store.read(rows).frames
        reference = bank.read([plan[row].condition_row for row in rows]).frames
        seen = {"first": frames[:, 0], "prior": reference[:, 0], "motion": optical_flow(frames),
                "asked": optical_flow(reference)}
        if judge:
            seen["probabilities"] = classifier.probabilities(judge, frames)
        if reader:
            seen["likeness"] = aligned.likeness(reader, frames, reader.facts["texts"])
        for name, values in seen.items():
            parts.setdefault(name, []).append(values.flatten(1))
    return {name: torch.cat(values) for name, values in parts.items()}


def _filtered(filtered: FilterAccount, value: Numbers, plan: Sequence[PlanRecord]) -> dict[str, Any]:
    """What one filter does to the value of the clips that reached it."""
    keep = {one.clip_id: one.keep for one in filtered.decisions}
    reached = [row for row, record in enumerate(plan) if record.clip_id in keep]
    kept = np.array([keep[plan[row].clip_id] for row in reached], bool)
    gain = bootstrap_gain(value[reached], kept, [plan[row].condition_id for row in reached])
    return {"clips": len(reached), "kept": int(kept.sum()), **asdict(gain)}


def label_agreement(probabilities: Tensor, classes: Sequence[str], labels: Sequence[str]) -> tuple[Numbers, Numbers]:
    """(N,) 1 where the likeliest class is the asked one, and (N,) how often the same calls would agree with it by chance.

    A clip's chance is the share of all clips that are given its asked class. Clips without a class are NaN.
    """
    called = np.array(classes)[probabilities.argmax(1).numpy()]
    asked = np.array(labels)
    share = {label: float((called == label).mean()) for label in set(labels)}
    value = np.where(asked == "", np.nan, called == asked)
    return value.astype(np.float64), np.array([share[label] if label else np.nan for label in labels])


def text_rank(likeness: Tensor, known: Sequence[str], texts: Sequence[str]) -> tuple[Numbers, Numbers]:
    """(N,) share of the other training texts that are less like the clip than the asked one (ties by half); chance, averaged
    over the clips that were asked for something else.

    Args:
        likeness: (N, L) of clips and the L texts of `known`.
    """
    ranks = likeness.numpy()
    below = (ranks[:, :, None] > ranks[:, None, :]).sum(2) + ((ranks[:, :, None] == ranks[:, None, :]).sum(2) - 1) / 2
    share = below / max(1, len(known) - 1)  # (N, L): rank of every text for every clip
    number = {text: place for place, text in enumerate(known)}
    value, chance = np.full(len(texts), np.nan), np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if text in number:
            others = [other for other, said in enumerate(texts) if said != text]
            value[row] = share[row, number[text]]
            chance[row] = share[others, number[text]].mean() if others else np.nan
    return value, chance


def paired_correlation(own: Tensor, asked: Tensor, groups: Sequence[str]) -> tuple[Numbers, Numbers]:
    """(N,) Pearson correlation of each clip's row with its condition's, and (N,) its mean with all other conditions'.

    All pairs are one matrix product. A row without variation correlates with nothing: NaN.
    """
    left, right = (_standard(one) for one in (own, asked))
    table = (left @ right.T).numpy().astype(np.float64)
    constant = (~left.any(1))[:, None] | (~right.any(1))[None]
    table[constant.numpy()] = np.nan
    name = np.array(groups)
    others = (name[:, None] != name[None]) & ~np.isnan(table)
    count = others.sum(1)
    total = np.where(others, table, 0).sum(1)
    chance = np.divide(total, count, out=np.full(len(name), np.nan), where=count > 0)
    return table.diagonal().copy(), chance


def _standard(rows: Tensor) -> Tensor:
    """Rows with mean 0 and norm 1; constant ones are 0."""
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-9, centred / norm.clamp_min(1e-9), 0)


def _summary(value: Numbers, chance: Numbers, groups: Sequence[str], what: str) -> dict[str, Any]:
    known = ~np.isnan(value) & ~np.isnan(chance)
    if not known.any():
        return {"what": what, "clips": 0, "value": None, "chance": None, "advantage": None, "low": None, "high": None}
    own = [group for group, there in zip(groups, known.tolist(), strict=True) if there]
    gain = bootstrap_mean(value[known] - chance[known], own)
    return {"what": what, "clips": int(known.sum()), "value": float(value[known].mean()), "chance": float(chance[known].mean()),
            "advantage": gain.mean, "low": gain.low, "high": gain.high}
