"""Raw video in: clips, splits, quarantine; and the condition bank made from the training split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import counts, sheet
from flows.layout import Layout
from tasks.condition import make_conditions
from tasks.ledger import writing
from tasks.local_copy import local_copy
from tasks.params import load_params
from tasks.prepare import prepare as prepare_clips

OBJECTS = Path(".cinefab") / "objects"
"""Copies of data sets on object storage, for every line of this checkout; safe to delete."""


@flow(name="prepare", flow_run_name="prepare {data.root.name}")
def prepare(params: Path, data: Layout) -> dict[str, Any]:
    tree = load_params(params)
    location = local_copy(tree.dataset.location, OBJECTS)
    with writing(data.prepared):
        summary = prepare_clips(tree.dataset.model_copy(update={"location": location}), tree.seed, data.prepared)
    counts("prepared", summary)
    sheet("prepared-clips", data.prepared / "clips.zarr")
    return summary


@flow(name="condition", flow_run_name="condition")
def condition(params: Path, data: Layout) -> int:
    tree = load_params(params)
    with writing(data.conditions):
        made = make_conditions(tree.conditions, tree.seed, data.prepared, data.conditions)
    counts("conditions", {"conditions": made})
    return made
