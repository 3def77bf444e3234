"""A real Prefect server: schedules fire, children appear under their parent, nothing is sent away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str, api: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": api, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cron_deployment_gets_scheduled_runs(api: str) -> None:
    """With SQLAlchemy 2.1 the scheduler fails on every pass and nothing else shows it."""
    code = """
import asyncio
from uuid import uuid4
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
@flow
def nightly(): ...
async def main():
    async with get_client() as client:
        flow_id = await client.create_flow(nightly)
        schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"), active=True)
        deployment = await client.create_deployment(flow_id, name="nightly", schedules=[schedule])
        for _ in range(120):
            runs = [run for run in await client.read_flow_runs() if run.deployment_id == deployment]
            if runs: break
            await asyncio.sleep(0.5)
        print(len(runs), {run.state.name for run in runs})
asyncio.run(main())
"""
    count, states = run(code, api).split(maxsplit=1)
    assert int(count) >= 1
    assert "Scheduled" in states


def test_a_stage_appears_under_the_factory(api: str) -> None:
    code = """
import os
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from flows.server import PARENT, run_linked
@flow(name="stage")
def stage(x: int): return x + 1
@task
def repro():
    os.environ[PARENT] = str(flow_run.id)
    return run_linked(stage, x=1)
@flow(name="factory-test")
def factory(): return repro()
assert factory() == 2
with get_client(sync_client=True) as client:
    runs = {run.name: run for run in client.read_flow_runs()}
    flows = {flow.name: flow.id for flow in client.read_flows()}
    child = next(run for run in runs.values() if run.flow_id == flows["stage"])
    parent = client.read_task_run(child.parent_task_run_id)
    print(next(run for run in runs.values() if run.id == parent.flow_run_id).flow_id == flows["factory-test"], child.state.name)
"""
    assert run(code, api).split()[-2:] == ["True", "Completed"]


def test_a_dead_address_is_one_clear_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows", "condition", "--data", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"},
    )
    assert done.returncode != 0
    assert "Failed to reach API" in done.stderr or "connect" in done.stderr.lower()


def test_telemetry_is_off() -> None:
    code = "import flows; from prefect.settings import get_current_settings as s; print(s().server.analytics_enabled)"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", (done.stderr, time.monotonic() - start)
