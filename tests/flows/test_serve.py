"""`cinefab serve`, for real: cron fires, the line runs by itself, versions come out of it, and a clone reads an old one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
import zarr
from conftest import checkout, talking_to
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from tasks.verify import verify_tree

NAME = "fluoroscopy_phantom_synthetic"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def clean_environment(home: Path) -> dict[str, str]:
    """As a user has it: this interpreter first, no server anywhere, one database of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT") and key != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}


def scheduled_line(folder: Path) -> Path:
    """A committed tiny line that is due every minute, and a folder as its remote."""
    checkout(folder)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["schedule"] = {"cron": "* * * * *"}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    git(folder, "config", "user.name", "a")
    git(folder, "config", "user.email", "a@b")
    command = ["dvc", "remote", "add", "--quiet", "--default", "store", str(folder.parent / "store")]
    subprocess.run(command, cwd=folder, check=True, env=clean_environment(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str], subprocess.Popen[str]]]:
    """`cinefab serve` in the folder: its API, the lines it printed before its address, and its process."""
    process = subprocess.Popen([sys.executable, "-m", "flows", "serve"], cwd=folder, stdout=subprocess.PIPE, text=True,
                               env=clean_environment(folder.parent / "prefect"))
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line.strip())
            if "shows the runs" in line:
                break
        api = f"{said[-1].split()[0]}/api"
        with talking_to(api):
            yield api, said, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def regenerations() -> list[FlowRun]:
    """Those that started, oldest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["regenerate"])),
                                     sort=FlowRunSort.EXPECTED_START_TIME_ASC)
    return [run for run in runs if run.start_time is not None]


def wait_for(wanted: Callable[[FlowRun], bool], seconds: float) -> FlowRun:
    """The first run that is as wanted; a failed one ends the wait."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = regenerations()
        for run in runs:
            assert run.state is not None and run.state.type.value not in {"FAILED", "CRASHED"}, run.state
            if wanted(run):
                return run
        time.sleep(2)
    raise AssertionError([(run.name, run.state) for run in regenerations()])


def named(name: str, message: str = "") -> Callable[[FlowRun], bool]:
    return lambda run: run.state is not None and run.state.name == name and message in (run.state.message or "")


def test_the_schedule_makes_versions_by_itself(tmp_path: Path) -> None:
    folder = scheduled_line(tmp_path / "line")
    with served(folder):
        first = wait_for(named("Released", f"{NAME}-v1"), 1500)
        assert first.auto_scheduled and git(folder, "tag") == f"{NAME}-v1"
        second = wait_for(named("Nothing stale", f"{NAME}-v1"), 300)
        assert second.auto_scheduled and git(folder, "tag") == f"{NAME}-v1"
        text = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(text.replace("steps: 2\n", "steps: 3\n"))
        assert (folder / "params.yaml").read_text() != text
        wait_for(named("Released", f"{NAME}-v2"), 900)
        runs = [run for run in regenerations() if run.end_time is not None]
        assert all(before.end_time <= after.start_time for before, after in pairwise(runs))  # never two at once
    assert git(folder, "status", "--porcelain") == ""
    assert "v1: " in git(folder, "tag", "--list", "-n99", f"{NAME}-v2")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--branch", f"{NAME}-v1", str(folder), str(clone))
    (folder / ".dvc" / "cache").rename(tmp_path / "nobody looks here")
    subprocess.run(["dvc", "pull", "--quiet", "data/release"], cwd=clone, check=True, env=clean_environment(tmp_path))
    clips = zarr.open_group(clone / "data" / "release" / "clips.zarr", mode="r")
    assert clips["frames"].shape[0] > 0 and verify_tree(clone / "data" / "release")[1] == []
