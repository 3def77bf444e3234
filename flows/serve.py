"""`cinefab serve`: one process that keeps the schedule of params.yaml, with the server that shows what it does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer
from prefect.flows import EntrypointType
from prefect.schedules import Cron

from flows.notify import load_block
from flows.processes import reap
from flows.regenerate import missed_until, regenerate
from flows.server import server
from tasks import repository
from tasks.params import load_params
from tasks.schedule import times_after


def serve(params: Path) -> None:
    """Runs until it is stopped; one regeneration at a time, later ones wait.

    Raises:
        ValueError: if there is no schedule, nobody to commit as, or no such notification block.
    """
    schedule = load_params(params).schedule
    if schedule is None:
        raise ValueError(f'{params}: has no schedule; add e.g. schedule: {{cron: "0 3 * * 0", timezone: Europe/Berlin}}')
    repository.check_identity()
    with server(known=True) as url:
        if schedule.notify:
            load_block(schedule.notify)
        for name in reap():
            typer.echo(f"{name}: its process is gone; marked as crashed")
        now = datetime.now(UTC)
        if sentence := missed_until(schedule, now):
            typer.echo(sentence)
        typer.echo(f"{url.removesuffix('/api')} shows the runs")
        typer.echo(f"the next is due at {next(times_after(schedule, now)):%Y-%m-%d %H:%M %Z}")
        regenerate.serve(
            name="schedule",
            schedule=Cron(schedule.cron, timezone=schedule.timezone),
            limit=1,
            parameters={"notify": schedule.notify},
            print_starting_message=False,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
