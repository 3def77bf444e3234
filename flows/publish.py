"""The report and the release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.artifacts import counts, link, sheet
from flows.layout import Layout
from tasks.ledger import writing
from tasks.numbers import counts as counts_of_line
from tasks.params import load_params
from tasks.release import release as make_release
from tasks.report import report as make_report


@flow(name="report", flow_run_name="report")
def report(params: Path, data: Layout) -> Path:
    tree = load_params(params)
    with writing(data.reports):
        path = make_report(tree, data.root, data.reports)
    counts("counts-through-the-line", counts_of_line(data.root, tree.samples), "from sources to clips kept")
    link("report", path)
    return path


@flow(name="release", flow_run_name="release")
def release(params: Path, data: Layout) -> dict[str, Any]:
    tree = load_params(params)
    with writing(data.release):
        facts = make_release(tree.release, tree.dataset, tree.audit, data.prepared, data.clips, data.decisions, data.audit,
                             data.benchmark, data.release)
    counts("release", facts)
    sheet("released-clips", data.release / "clips.zarr")
    return facts
