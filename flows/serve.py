"""`cinefab serve`: one process that keeps the schedule of params.yaml, with the server that shows what it does."""

from __future__ import annotations

import multiprocessing
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import StateType
from prefect.flows import EntrypointType
from prefect.schedules import Cron
from prefect.states import Cancelled

from flows.at_work import end_tree, reap
from flows.notify import load_block
from flows.regenerate import MISSED, NAME, missed_until, regenerate
from flows.server import server
from tasks import repository
from tasks.params import load_params
from tasks.schedule import times_after

DEPLOYMENT = "schedule"


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
        _leave_out_until(now)
        if sentence := missed_until(schedule, now):
            typer.echo(sentence)
        typer.echo(f"the next run is due at {next(times_after(schedule, now)):%Y-%m-%d %H:%M %Z}")
        typer.echo(f"{url.removesuffix('/api')} shows the runs")
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited")  # Prefect's, when told to terminate
        try:
            regenerate.serve(
                name=DEPLOYMENT,
                schedule=Cron(schedule.cron, timezone=schedule.timezone),
                limit=1,
                parameters={"notify": schedule.notify},
                print_starting_message=False,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        finally:  # it would leave a run at work as well, without its server
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    end_tree(child.pid)


def _leave_out_until(now: datetime) -> None:
    """Mark what was due while nobody served as missed; Prefect would start all of it now, with the parameters of then."""
    state: State[Any] = Cancelled(name=MISSED, message="`cinefab serve` was not running")
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[NAME])),
            deployment_filter=filters.DeploymentFilter(name=filters.DeploymentFilterName(any_=[DEPLOYMENT])),
            flow_run_filter=filters.FlowRunFilter(
                state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=filters.FlowRunFilterExpectedStartTime.model_validate({"before_": now}),
            ),
        ):
            client.set_flow_run_state(run.id, state, force=True)
