"""Does a synthetic set show what was asked for? One number for each condition, beside what chance would give.

For clips made from a bank of whole training clips. Critics trained on real clips look at class and text; image prior and motion
are compared with the reference itself. "Chance" keeps clips and conditions and breaks their pairing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.critics import aligned, classifier
from models.motion import optical_flow
from tasks.checkpoints import load_checkpoint
from tasks.condition import STORE
from tasks.params import ControlParams
from tasks.records import PlanRecord
from tasks.statistics import bootstrap_mean
from tasks.store import ClipStore
from tasks.tables import read_table, write_json

READ_TOGETHER = 32
"""Clips in memory at a time."""


def control(params: ControlParams, conditions: Path, critics: Path, clips: Path, out: Path) -> dict[str, Any]:
    """Write `control.json` of a set: {value, chance, advantage, low, high, clips, what} of "label", "text", "image", "motion".

    `advantage` is value minus chance, clip by clip, with a 95 % bootstrap interval over conditions. Only what the bank and the
    critics allow is there; for a bank of masks nothing is.
    """
    plan = read_table(clips / "plan.parquet", PlanRecord)
    store, bank = ClipStore.open(clips / "clips.zarr"), ClipStore.open(conditions / STORE)
    found: dict[str, Any] = {}
    if "frames" in bank.arrays:
        groups = [record.condition_id for record in plan]
        labels, texts = [record.label or "" for record in plan], [record.text for record in plan]
        looks = _looks(params, critics, store, bank, plan)
        if looks.probabilities is not None:
            found["label"] = _summary(*label_agreement(looks.probabilities, looks.classes, labels), groups,
                                      "share of clips that a real-data classifier gives the asked class")
        if looks.likeness is not None:
            found["text"] = _summary(*text_rank(looks.likeness, looks.texts, texts), groups,
                                     "share of the other training texts that the clip is less like than the asked one")
        for name, (own, asked), what in (
            ("image", looks.first, "correlation of the first frame with the image prior"),
            ("motion", looks.motion, "correlation of the clip's own motion with the asked motion field"),
        ):
            found[name] = _summary(*paired_correlation(own, asked, groups), groups, what)
    write_json(out / "control.json", found)
    return found


class _Looks:
    """What critics and optical flow see in every clip of a set; rows in plan order."""

    def __init__(self) -> None:
        self.probabilities: Tensor | None = None
        self.likeness: Tensor | None = None
        self.classes: list[str] = []
        self.texts: list[str] = []
        self.first: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.motion: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))


def _looks(params: ControlParams, critics: Path, store: ClipStore, bank: ClipStore, plan: Sequence[PlanRecord]) -> _Looks:
    looks = _Looks()
    judge = load_checkpoint(critics / params.classifier) if params.classifier else None
    reader = load_checkpoint(critics / params.aligned) if params.aligned else None
    looks.classes = judge.facts["labels"] if judge else []
    looks.texts = reader.facts["texts"] if reader else []
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
            seen["likeness"] = aligned.likeness(reader, frames, looks.texts)
        for name, values in seen.items():
            parts.setdefault(name, []).append(values.flatten(1))
    whole = {name: torch.cat(values) for name, values in parts.items()}
    looks.probabilities, looks.likeness = whole.get("probabilities"), whole.get("likeness")
    looks.first, looks.motion = (whole["first"], whole["prior"]), (whole["motion"], whole["asked"])
    return looks


Numbers = NDArray[np.float64]


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
