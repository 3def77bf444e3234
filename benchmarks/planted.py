"""How well the filter chain finds what it is for: wrong-class, static, flickering and duplicated clips planted among real ones.

    python benchmarks/planted.py data --out docs/results/planted_lung.json

Reads the prepared clips and the critics of a finished run, and the chain of its params.yaml. Real clips play the good synthetic
clips, once those the critics were trained on and once those of held-out patients. Every filter is asked alone, then the chain.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import plugin
from models.clip import ClipBatch, Condition
from models.seeding import generator
from tasks.checkpoints import load_checkpoint
from tasks.described import Described
from tasks.filters import Evidence
from tasks.params import load_params
from tasks.records import ClipRecord
from tasks.store import ClipStore
from tasks.tables import read_table

KINDS = ("wrong_class", "static", "flickering", "duplicated")
GROUP = 12
"""Clips that stand for those of one condition."""


@dataclass(frozen=True)
class Planted:
    """Clips in a random order of plan, what each is ("good" or one of `KINDS`), and its group."""

    batch: ClipBatch
    kinds: list[str]
    groups: tuple[str, ...]


def plant(batch: ClipBatch, share: float, rng: torch.Generator) -> Planted:
    """Each kind is made from `share` of the good clips, and stands in a group of the class it claims to show."""
    classes = sorted(set(batch.condition.labels))
    own = list(batch.condition.labels)
    parts: dict[str, tuple[Tensor, list[int], list[str]]] = {"good": (batch.frames, list(range(len(batch))), own)}
    number = max(1, round(share * len(batch)))
    for kind in KINDS:
        rows = torch.randperm(len(batch), generator=rng)[:number].tolist()
        labels = [batch.condition.labels[row] for row in rows]
        frames = batch.frames[rows].clone()
        if kind == "wrong_class":
            labels = [classes[(classes.index(label) + 1) % len(classes)] for label in labels]
        elif kind == "static":
            frames = frames[:, :1].expand_as(frames).clone()
        elif kind == "flickering":  # every frame is of another clip of the class
            for row, label in enumerate(labels):
                pool = [other for other, own in enumerate(batch.condition.labels) if own == label]
                picks = [pool[place] for place in torch.randint(len(pool), (frames.shape[1],), generator=rng).tolist()]
                frames[row] = batch.frames[picks, torch.arange(frames.shape[1])]
        else:
            frames = (frames + 0.01 * torch.randn(frames.shape, generator=rng)).clamp(-1, 1)
        parts[kind] = (frames, rows, labels)
    home = dict(enumerate(_groups(list(batch.condition.labels), rng)))
    frames = torch.cat([part for part, _, _ in parts.values()])
    labels = [label for _, _, said in parts.values() for label in said]
    kinds = [kind for kind, (_, rows, _) in parts.items() for _ in rows]
    origin = [row for _, rows, _ in parts.values() for row in rows]
    groups = []
    for label, kind, row in zip(labels, kinds, origin, strict=True):
        same = sorted({group for group in home.values() if group.startswith(f"{label}/")})
        groups.append(home[row] if kind != "wrong_class" else same[row % len(same)])
    order = [*range(len(batch)), *(len(batch) + torch.randperm(len(kinds) - len(batch), generator=rng)).tolist()]
    ids = tuple(f"clip{place}" for place in range(len(order)))
    masks = torch.zeros(len(order), *frames.shape[1:2], *frames.shape[3:], dtype=torch.uint8)
    condition = Condition(ids, masks, tuple(labels[row] for row in order))
    return Planted(ClipBatch(ids, frames[order], condition), [kinds[row] for row in order], tuple(groups[row] for row in order))


def _groups(labels: list[str], rng: torch.Generator) -> list[str]:
    """About `GROUP` clips of one class a group."""
    names = [""] * len(labels)
    for label in set(labels):
        rows = [row for row, own in enumerate(labels) if own == label]
        for place, at in enumerate(torch.randperm(len(rows), generator=rng).tolist()):
            names[rows[at]] = f"{label}/{place // GROUP}"
    return names


def judge(planted: Planted, filters: dict[str, dict[str, Any]], critics: Path,
          beside: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """{filter or "chain": {kind: {dropped, of, share, low, high}}}; shares have 95 % Wilson intervals.

    Args:
        beside: filters that are asked alone and are no part of the chain.
    """
    ids, found, alive = planted.batch.ids, {}, list(planted.batch.ids)
    for name, entry in (filters | (beside or {})).items():
        module = plugin.load("tasks.filters", entry["kind"])
        one = module.build(plugin.params("tasks.filters", entry), load_checkpoint(critics / entry["critic"]))
        evidence = Evidence(ids, planted.groups, one.score(planted.batch))
        found[name] = _shares(planted, {made.clip_id for made in one.decide(evidence, ids) if not made.keep})
        if name in filters:
            alive = [made.clip_id for made in one.decide(evidence, alive) if made.keep]
    found["chain"] = _shares(planted, set(ids) - set(alive))
    return found


def _shares(planted: Planted, dropped: set[str]) -> dict[str, dict[str, float]]:
    table = {}
    for kind in ("good", *KINDS):
        rows = [clip for clip, own in zip(planted.batch.ids, planted.kinds, strict=True) if own == kind]
        gone = sum(clip in dropped for clip in rows)
        low, high = proportion_confint(gone, len(rows), method="wilson")
        table[kind] = {"dropped": gone, "of": len(rows), "share": gone / len(rows), "low": float(low), "high": float(high)}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.25, help="planted clips of each kind, as a share of the good ones")
    wanted = parser.parse_args()
    params = load_params(wanted.params)
    records = read_table(wanted.data / "prepared" / "manifest.parquet", ClipRecord)
    store = Described(ClipStore.open(wanted.data / "prepared" / "clips.zarr"), records)
    filters = {name: entry for name, entry in params.filters.items() if entry["kind"] in ("semantic", "vae_seq", "similarity")}
    # the other rule for the band, whatever the run had
    beside = {f"{name}_real": {**entry, "rule": "real"} for name, entry in filters.items() if entry["kind"] == "vae_seq"}
    table = {}
    for split in ("train", "test"):
        rows = [row for row, record in enumerate(records) if record.split == split and record.label]
        table[split] = judge(plant(store.read(rows), wanted.share, generator(params.seed)), filters, wanted.data / "critics",
                             beside)
    found = {"dataset": params.dataset.name, "filters": filters | beside, "good clips of": table}
    wanted.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
