"""A run whose process was killed is found and marked; a run that takes long is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import talking_to
from prefect import flow
from prefect.client.orchestration import get_client

from flows.at_work import reap
from flows.server import run_linked

VICTIM = """
import time
from prefect import flow
from flows.server import run_linked

@flow(flow_run_name="killed below")
def inner():
    print("started", flush=True)
    time.sleep(600)

@flow(flow_run_name="killed")
def outer():
    inner()

run_linked(outer)
"""


@flow(flow_run_name="alive")
def living() -> list[str]:
    return reap()


def test_only_the_dead_are_marked(api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path.cwd()
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(root)}
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, env=environment)
    assert victim.stdout is not None and victim.stdout.readline() == b"started\n"
    with talking_to(api), get_client(sync_client=True) as client:
        assert run_linked(living) == []
        victim.kill()
        victim.wait()
        other = tmp_path / "another checkout"
        other.mkdir()
        monkeypatch.chdir(other)
        assert run_linked(living) == []
        monkeypatch.chdir(tmp_path)
        assert run_linked(living) == ["killed", "killed below"]
        assert run_linked(living) == []
        states = {run.name: run.state for run in client.read_flow_runs()}
        assert states["killed"].name == states["killed below"].name == "Crashed"
        assert "is gone" in states["killed"].message
        assert states["alive"].name == "Completed"
    assert list((tmp_path / ".cinefab" / "processes").iterdir()) == []
