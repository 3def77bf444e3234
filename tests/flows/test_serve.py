"""`cinefab serve`, for real: cron fires, the line runs by itself, versions come out of it, and a clone reads an old one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import yaml
import zarr
from conftest import Webhook, checkout, commit, git, small_checkout, talking_to
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from flows.regenerate import MISSED
from tasks.verify import verify_tree

NAME = "fluoroscopy_phantom_synthetic"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def clean_environment(home: Path) -> dict[str, str]:
    """As a user has it: this interpreter first, no server anywhere, one database of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT") and key != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}


def every_minute(folder: Path, notify: str | None = None) -> None:
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["schedule"] = {"cron": "* * * * *", "notify": notify}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


@contextmanager
def served(folder: Path) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """`cinefab serve` in the folder: the lines it prints before runs begin, and its process. This process talks to its server."""
    process = subprocess.Popen([sys.executable, "-m", "flows", "serve"], cwd=folder, stdout=subprocess.PIPE, text=True,
                               env=clean_environment(folder.parent / "prefect"))
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line.strip())
            if "shows the runs" in line:
                break
        with talking_to(f"{said[-1].split()[0]}/api"):
            yield said, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def regenerations() -> list[FlowRun]:
    """Those that started, oldest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["regenerate"])),
                                     sort=FlowRunSort.EXPECTED_START_TIME_ASC)
    return [run for run in runs if run.start_time is not None and run.state is not None and run.state.name != MISSED]


def wait_for(wanted: Callable[[FlowRun], bool], seconds: float, unwanted: Collection[str] = ("FAILED", "CRASHED")) -> FlowRun:
    """The first run that is as wanted; one of an unwanted type ends the wait."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = regenerations()
        for run in runs:
            assert run.state.type.value not in unwanted, run.state
            if wanted(run):
                return run
        time.sleep(2)
    raise AssertionError([(run.name, run.state) for run in regenerations()])


def named(name: str, message: str = "") -> Callable[[FlowRun], bool]:
    return lambda run: run.state.name == name and message in (run.state.message or "")


def test_the_schedule_makes_versions_by_itself(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "line")
    every_minute(folder)
    commit(folder)
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


def test_what_is_missed_or_dies_is_told(tmp_path: Path, webhook: Webhook) -> None:
    """A line of seconds: nobody serves for two minutes, then the run's process is killed, then the whole command is stopped."""
    folder = small_checkout(tmp_path / "line")
    every_minute(folder)
    commit(folder)
    with served(folder):
        webhook.save_block()
        wait_for(named("Released", f"{NAME}-v1"), 300)
    time.sleep(130)
    every_minute(folder, "custom-webhook/ops")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("clips: 6\n", "clips: 7\n"))
    (folder / "wait").touch()
    with served(folder) as (said, process):
        assert any(re.match("[23] times of the schedule passed without a run", line) for line in said)
        stage = at_work(folder)
        next(one for one in stage.parents() if one.ppid() == process.pid).kill()
        crashed = wait_for(named("Crashed"), 60, {"FAILED"})
        assert f"line: regenerate of {crashed.expected_start_time:%Y-%m-%d %H:%M %Z}: Crashed" in told(webhook)
        skipped = wait_for(named("Skipped"), 120, {"FAILED"})  # DVC goes on without the run
        assert f"(process {stage.ppid()})" in skipped.state.message
        (folder / "wait").unlink()
        wait_for(named("Released", f"{NAME}-v2"), 180, {"FAILED"})
        text = (folder / "params.yaml").read_text()
        (folder / "wait").touch()
        (folder / "params.yaml").write_text(text.replace("clips: 7\n", "clips: 8\n"))
        stage = at_work(folder)
        process.terminate()
        assert process.wait(60) == 0
        assert not stage.is_running()
    (folder / "wait").unlink()
    with served(folder):
        wait_for(lambda run: run.state.name == "Crashed" and "termination signal" in run.state.message, 10, set())
        wait_for(named("Released", f"{NAME}-v3"), 180, set())
    assert git(folder, "tag").split() == [f"{NAME}-v1", f"{NAME}-v2", f"{NAME}-v3"]


def at_work(folder: Path) -> psutil.Process:
    """The process of the stage that waits."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.cmdline()[1:] == ["small_stage.py", "sample"] and one.cwd() == str(folder):
                    return one
        time.sleep(0.5)
    raise AssertionError("no stage started")


def told(webhook: Webhook) -> list[str]:
    """The subjects of what has arrived, of something at least."""
    deadline = time.monotonic() + 30
    while not webhook.arrived and time.monotonic() < deadline:
        time.sleep(0.5)
    return [one["subject"] for one in webhook.arrived]
