"""How many clips of each class a set gets: a histogram, what the real classes lack of the largest, or as many as are kept.

Rejection sampling (SurV-Gen, section 2.3) makes candidates in rounds until enough of every class are kept or a budget is spent.
A round is planned from what the rounds before gave, so a run that was killed plans the same rounds again.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.checkpoints import checkpoint_digest
from tasks.curate import filter_of
from tasks.filters import Evidence
from tasks.params import Entry, SampleParams
from tasks.records import ClipRecord, PlanRecord
from tasks.store import ClipStore
from tasks.tables import read_json, read_table, write_json

logger = logging.getLogger(__name__)


def clips_of_classes(sample: SampleParams, prepared: Path) -> dict[str, int]:
    """How many clips of each class; for "balance", what each class of the training split lacks of the largest.

    Raises:
        ValueError: if nothing is wanted, or more than `clips` without rejection.
    """
    if isinstance(sample.per_class, dict):
        found = {label: number for label, number in sorted(sample.per_class.items()) if number}
    else:
        records = read_table(prepared / "manifest.parquet", ClipRecord)
        real = Counter(record.label for record in records if record.split == "train" and record.label)
        found = {label: max(real.values()) - number for label, number in sorted(real.items()) if number < max(real.values())}
    if not found:
        raise ValueError("per_class: asks for no clip; with balance, the training classes are equally large already")
    if (total := sum(found.values())) > sample.clips:
        what = ", ".join(f"{label} {number}" for label, number in found.items())
        raise ValueError(f"per_class: asks for {total} clips ({what}), but clips allows {sample.clips}; raise clips")
    return found


def next_round(sample: SampleParams, asked: Mapping[str, int], made: Mapping[str, int], kept: Mapping[str, int],
               rounds: int) -> dict[str, int]:
    """How many candidates of each class to make now; empty when enough are kept, or rounds or budget are spent.

    A class is asked for what it is short of over its acceptance rate so far (add-one: 1 before the first round). Where the
    budget does not reach, classes share it evenly, none beyond its need: one that is hardly ever kept cannot starve the others.
    Rounds fill whole shards, the last one what is left of the budget; what a shard has over goes to the classes in turn.

    Args:
        asked: clips of each class that are to be kept.
        made, kept: of each class so far.
        rounds: those done.
    """
    left = sample.clips - sum(made.values())
    short = {label: number - kept.get(label, 0) for label, number in asked.items() if kept.get(label, 0) < number}
    if not short or left <= 0 or rounds >= sample.rounds:
        return {}
    rate = {label: (kept.get(label, 0) + 1) / (made.get(label, 0) + 1) for label in short}
    need = {label: math.ceil(number / rate[label]) for label, number in short.items()}
    total = min(left, math.ceil(sum(need.values()) / sample.shard_clips) * sample.shard_clips)
    share: dict[str, int] = {}
    for place, label in enumerate(cheapest := sorted(need, key=lambda label: (need[label], label))):
        share[label] = min(need[label], (total - sum(share.values())) // (len(need) - place))
    for place in range(total - sum(share.values())):
        share[cheapest[place % len(cheapest)]] += 1
    return {label: number for label, number in sorted(share.items()) if number}


def sample_until(sample: SampleParams, asked: Mapping[str, int], judge: Entry, critics: Path, out: Path,
                 make: Callable[[Sequence[Mapping[str, int]], Any], int]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Rounds of candidates until the judge keeps enough of every class, or rounds or budget are spent; writes `rounds.json`.

    Args:
        asked: clips of each class that are to be kept.
        judge: the entry of a rejection filter.
        make: makes the shards of the rounds so far; the second argument is what the plan depends on beside the clips.

    Returns:
        How many shards were made now, and of each class {wanted, made, kept, rate}.
    """
    basis = [dict(asked), judge, checkpoint_digest(critics / judge["critic"])]
    rounds: list[dict[str, int]] = []
    results: list[dict[str, dict[str, int]]] = []
    made: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    now = 0
    while counts := next_round(sample, asked, made, kept, len(rounds)):
        rounds.append(counts)
        now += make(rounds, basis)
        plan = read_table(out / "plan.parquet", PlanRecord)
        new, good = accepted(out, plan[sum(made.values()) :], judge, critics)
        made, kept = made + new, kept + good
        results.append({"made": dict(new), "kept": dict(good)})
        logger.info("round %d: %d clips made, %d kept", len(rounds), sum(new.values()), sum(good.values()))
    return now, _record(out, asked, made, kept, results)


def accepted(out: Path, plan: Sequence[PlanRecord], entry: Entry, critics: Path) -> tuple[Counter[str], Counter[str]]:
    """Clips made and kept of each class among these clips of an unfinished set, by a filter that looks at each clip alone."""
    store = ClipStore.resume(out / "clips.zarr", read_json(out / "plan.json")["fingerprint"])
    made: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    one = filter_of(entry, critics)
    for shard in sorted({record.shard for record in plan}):
        own = [record for record in plan if record.shard == shard]
        labels = tuple(record.label or "" for record in own)
        batch = store.read(range(shard * store.shard_clips, shard * store.shard_clips + len(own)))
        batch = replace(batch, condition=replace(batch.condition, labels=labels))
        evidence = Evidence(batch.ids, tuple(record.condition_id for record in own), one.score(batch))
        decisions = one.decide(evidence, batch.ids)
        made.update(labels)
        kept.update(label for label, decision in zip(labels, decisions, strict=True) if decision.keep)
    return made, kept


def _record(out: Path, asked: Mapping[str, int], made: Counter[str], kept: Counter[str],
            rounds: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, Any]]:
    """A class of which nothing was kept, or less than wanted, is warned of."""
    classes = {label: {"wanted": number, "made": made[label], "kept": kept[label],
                       "rate": kept[label] / made[label] if made[label] else None} for label, number in sorted(asked.items())}
    for label, number in asked.items():
        if kept[label] < number:
            logger.warning("class %s: %d of %d wanted clips were kept, of %d made; rounds or budget are spent", label,
                           kept[label], number, made[label])
    write_json(out / "rounds.json", {"classes": classes, "rounds": list(rounds)})
    return classes
