"""Score a synthetic set shard by shard, then let the filters decide in order; measure whether it looks real and as
asked, how far it is from the real clips, where it lies among them and how like them it is, how well its generator animates
stills, if it does, and whether it copies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import counts, in_turn
from flows.engine import engine
from flows.layout import Layout
from flows.steps import device, score_shard
from tasks.animation import animation
from tasks.appearance import look
from tasks.audit import audit as compare
from tasks.control import control as measure
from tasks.curate import clear_evidence, run_chain, shards_of
from tasks.distribution import distribution
from tasks.feature_map import feature_map
from tasks.ledger import writing
from tasks.likeness import likeness
from tasks.params import entry, load_params
from tasks.timing import curation_time


@flow(name="curate", flow_run_name="curate {name}")
def curate(params: Path, data: Layout, name: str) -> dict[str, Any]:
    began, tree = time.monotonic(), load_params(params)
    entry(tree.samples, name, "samples")  # refuse an unknown name before any work
    filters = tree.filters
    clips, out = data.clips / name, data.decisions / name
    with writing(out), engine(tree.engine.on_our_disk, 1) as where:
        runs = [
            where.submit(score_shard, name=filter_name, shard=shard, entry=own, clips=clips, critics=data.critics, out=out)
            for filter_name, own in filters.items()
            for shard in shards_of(clips)
        ]
        list(in_turn(f"curated-{name}-progress", "shards scored", runs))
        summary = run_chain(clips, filters, data.critics, out)
        arms = [arm for arm in tree.benchmark.arms.values() if arm.synthetic == name]
        for part in sorted({tuple(arm.filters) for arm in arms if arm.filters is not None}):
            run_chain(clips, filters, data.critics, out, part)
        took = time.monotonic() - began
        curation_time(summary["clips"], took, where.workers, out, data.timing / "curate" / f"{name}.json")
    clear_evidence(out)
    counts(f"curated-{name}", summary)
    return summary


@flow(name="control", flow_run_name="control {name}")
def control(params: Path, data: Layout, name: str) -> dict[str, Any]:
    tree = load_params(params)
    own = entry(tree.samples, name, "samples")
    clips, out = data.clips / name, data.control / name
    with writing(out):
        found = measure(tree.control, data.conditions, data.critics, clips, data.decisions / name, out)
        seen = look(tree.control, data.critics, data.prepared, clips, data.features, out)
        seen |= likeness(data.prepared, clips, data.features, out)
        distribution(tree.control, data.critics, data.prepared, clips, data.features, out)
        feature_map(tree.control, data.critics, data.prepared, clips, data.features, out)
        with device() as where:
            checkpoint = data.checkpoint(own.generator)
            moved = animation(tree.control, own.sampling, data.prepared, checkpoint, data.critics, out, where)
    shown = {what: numbers["value"] for what, numbers in (found | seen).items()}
    counts(f"control-{name}", shown | moved.get("sentences", {}))
    return found


@flow(name="audit", flow_run_name="audit {name}")
def audit(params: Path, data: Layout, name: str) -> dict[str, Any]:
    tree = load_params(params)
    own = entry(tree.samples, name, "samples")
    checkpoint = data.checkpoint(own.generator)
    with writing(data.audit / name):
        found = compare(data.prepared, data.conditions, checkpoint, data.clips / name, data.audit / name)
    counts(f"audit-{name}", found)
    return found
