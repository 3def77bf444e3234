"""The whole line on other random splits of the patients, each in a folder of its own, and one page about all of them."""

from __future__ import annotations

from pathlib import Path

import typer
from prefect import flow

from flows.artifacts import link
from flows.curate import audit, control, curate
from flows.layout import Layout
from flows.prepare import condition, prepare
from flows.prove import benchmark
from flows.publish import release, report
from flows.synthesize import sample
from flows.train import critic, train
from tasks.params import load_params
from tasks.release import RefusedError
from tasks.repeats import finish, is_done, plan_repeats, pool, write_params
from tasks.repeats_page import repeats_page


@flow(name="repeat", flow_run_name="cinefab repeat")
def repeat(params: Path, data: Layout, names: list[str]) -> Path | None:
    """Returns the page, or None while repeats that are not in `names` are missing."""
    tree = load_params(params)
    plan = plan_repeats(tree, names)
    for number, one in enumerate(plan, 1):
        typer.echo(f"{one.name}, {number} of {len(plan)}")
        folder = Layout(data.repeats / one.name)
        line(write_params(params, one, folder.root), folder)
    if any(not is_done(data.repeats / one.name) for one in plan_repeats(tree)):
        return None
    page = repeats_page(tree, pool(tree, data.repeats), data.repeats)
    link("repeats", page)
    return page


@flow(name="line", flow_run_name="line {data.root.name}")
def line(params: Path, data: Layout) -> None:
    """Every stage of dvc.yaml once, in its order; a line that has run to its end with the same clips and code is left alone."""
    tree = load_params(params)
    prepare(params, data)
    if is_done(data.root):
        return
    condition(params, data)
    for name in tree.generators:
        train(params, data, name)
    for name in tree.critics:
        critic(params, data, name)
    for name in tree.samples:
        sample(params, data, name)
        curate(params, data, name)
        control(params, data, name)
    audit(params, data, tree.release.source)
    benchmark(params, data)
    report(params, data)
    try:
        release(params, data)
    except RefusedError as refused:  # what the line found out counts all the same
        typer.echo(refused)
    finish(data.root)
