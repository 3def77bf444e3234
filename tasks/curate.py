"""The filter chain: score every shard, then decide filter by filter. Each sees its predecessors' survivors."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from models import plugin
from models.generators import Checkpoint
from tasks.checkpoints import checkpoint_digest, load_checkpoint
from tasks.described import Described
from tasks.devices import first_device
from tasks.filters import Evidence, Filter
from tasks.fingerprint import fingerprint
from tasks.params import Entry
from tasks.records import Decision, PlanRecord, ScoreRecord
from tasks.store import ClipStore
from tasks.tables import atomic_write, read_table, write_json, write_table

logger = logging.getLogger(__name__)

EVIDENCE = ".evidence"


def shards_of(clips: Path) -> list[int]:
    """The shards of a finished set."""
    store = ClipStore.open(clips / "clips.zarr")
    return list(range(math.ceil(len(store) / store.shard_clips)))


def score_shard(clips: Path, shard: int, name: str, entry: Entry, critics: Path, out: Path) -> None:
    """One filter's evidence on one shard; skipped if it is there already for the same clips, critic and code."""
    store = ClipStore.open(clips / "clips.zarr")
    mark = _mark(store, name, entry, critics)
    file = out / EVIDENCE / name / f"{shard:05d}.safetensors"
    if _values(file, mark) is not None:
        return
    rows = list(range(shard * store.shard_clips, min((shard + 1) * store.shard_clips, len(store))))
    described = Described(store, read_table(clips / "plan.parquet", PlanRecord))
    values = filter_of(entry, critics).score(described.read(rows))
    values = values.float().contiguous()
    atomic_write(file, save({"values": values}, _made_of(mark, values)))


def chain_folder(decisions: Path, only: Sequence[str] | None) -> Path:
    """Where the decisions of a part of the chain lie, inside those of the whole; of the whole itself without `only`."""
    return decisions if only is None else decisions / "parts" / ("-".join(only) or "none")


def run_chain(clips: Path, filters: Mapping[str, Entry], critics: Path, out: Path,
              only: Sequence[str] | None = None) -> dict[str, Any]:
    """Write scores.parquet, decisions.parquet and summary.json from the evidence; returns the summary.

    A filter with `score_only` keeps every candidate and says what it would have dropped. The summary counts the clips into and
    out of every filter, of each condition and of each class; a filter that takes the last clip of a condition or of a class, or
    more than half of a class, is warned of.

    Args:
        only: names of the filters that decide, in the chain's order: an ablation, written to `chain_folder`. None: all.

    Raises:
        ValueError: if a shard has not been scored, or the plan is not of these clips.
    """
    store = ClipStore.open(clips / "clips.zarr")
    plan = read_table(clips / "plan.parquet", PlanRecord)
    if tuple(record.clip_id for record in plan) != store.ids:
        raise ValueError(f"{clips}: plan.parquet does not list the clips of clips.zarr; sample the set again")
    group = {record.clip_id: record.condition_id for record in plan}
    label = {record.clip_id: record.label for record in plan if record.label}
    alive = list(store.ids)
    scores: list[ScoreRecord] = []
    decisions: list[Decision] = []
    steps: dict[str, dict[str, Any]] = {}
    chosen = {name: entry for name, entry in filters.items() if only is None or name in only}
    for number, (name, entry) in enumerate(chosen.items(), 1):
        made, would_drop = _decide(name, entry, store, tuple(group.values()), alive, critics, out)
        decisions += made
        scores += [ScoreRecord(one.clip_id, name, one.score) for one in made]
        survivors = [one.clip_id for one in made if one.keep]
        emptied = sorted({group[clip] for clip in alive} - {group[clip] for clip in survivors})
        if emptied:
            logger.warning("filter %s leaves %d conditions without a clip: %s", name, len(emptied), ", ".join(emptied[:5]))
        _warn_of_classes(name, Counter(label[clip] for clip in alive if clip in label),
                         Counter(label[clip] for clip in survivors if clip in label))
        steps[name] = {"step": number, "kind": entry["kind"], "in": len(alive), "out": len(survivors), "would_drop": would_drop,
                       "threshold": made[0].threshold if made else "none", "conditions_emptied": emptied}
        alive = survivors
    asked, left = Counter(group.values()), Counter(group[clip] for clip in alive)
    summary = {
        "clips": len(store),
        "accepted": len(alive),
        "filters": steps,
        "conditions": {one: {"in": asked[one], "out": left[one]} for one in asked},
        "conditions_emptied": len(asked) - len(left),
        "classes": {one: {"in": number, "out": sum(label.get(clip) == one for clip in alive)}
                    for one, number in sorted(Counter(label.values()).items())},
    }
    out = chain_folder(out, only)
    write_table(out / "scores.parquet", scores, ScoreRecord)
    write_table(out / "decisions.parquet", decisions, Decision)
    write_json(out / "summary.json", summary)
    return summary


def clear_evidence(out: Path) -> None:
    """Remove what every chain has decided on."""
    shutil.rmtree(out / EVIDENCE, ignore_errors=True)


def _warn_of_classes(name: str, before: Counter[str], after: Counter[str]) -> None:
    for one, number in sorted(before.items()):
        if after[one] * 2 < number:
            logger.warning("filter %s drops %d of %d clips of class %s%s", name, number - after[one], number, one,
                           ", which is all of them" if not after[one] else "")


def _decide(name: str, entry: Entry, store: ClipStore, groups: tuple[str, ...], alive: list[str], critics: Path,
            out: Path) -> tuple[list[Decision], int]:
    mark = _mark(store, name, entry, critics)
    parts = []
    for shard in range(math.ceil(len(store) / store.shard_clips)):
        values = _values(file := out / EVIDENCE / name / f"{shard:05d}.safetensors", mark)
        if values is None:
            raise ValueError(f"{file}: shard {shard} has no score by filter {name}; run `cinefab curate` again")
        parts.append(values)
    made = filter_of(entry, critics).decide(Evidence(store.ids, groups, torch.cat(parts)), alive)
    made = [replace(one, filter=name) for one in made]
    would_drop = sum(not one.keep for one in made)
    if plugin.params("tasks.filters", entry).score_only:
        made = [one if one.keep else replace(one, keep=True, reason=f"score only (would be dropped: {one.reason})")
                for one in made]
    return made, would_drop


def _mark(store: ClipStore, name: str, entry: Entry, critics: Path) -> str:
    return fingerprint("evidence", name, entry, store.digest, checkpoint_digest(critics / entry["critic"]))


def _values(file: Path, mark: str) -> torch.Tensor | None:
    """The evidence in a file, None if it is not there, broken or of another fingerprint."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            said, values = opened.metadata() or {}, opened.get_tensor("values")
    except SafetensorError:
        return None
    return values if said == _made_of(mark, values) else None


def _made_of(mark: str, values: torch.Tensor) -> dict[str, str]:
    """One entry: safetensors writes several in a random order, and the same evidence would not be the same bytes."""
    return {"made_of": f"{mark} {hashlib.blake2b(values.numpy().tobytes(), digest_size=16).hexdigest()}"}


def filter_of(entry: Entry, critics: Path) -> Filter:
    """The filter of an entry with its critic."""
    module = plugin.load("tasks.filters", entry["kind"])
    folder = critics / entry["critic"]
    built: Filter = module.build(plugin.params("tasks.filters", entry), _critic(folder, checkpoint_digest(folder)))
    return built


@lru_cache(maxsize=8)
def _critic(folder: Path, digest: str) -> Checkpoint:
    """Read once per process; `digest` is part of the key so that a retrained one is read again."""
    return load_checkpoint(folder, first_device())
