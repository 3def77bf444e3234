"""What is to be seen of the line: one server that everything finds and that ends with its starter, one run of a plain
`dvc repro`, artifacts and progress."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml
from conftest import ROOT, environment, talking_to
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import Artifact, StateType
from prefect.runtime import flow_run

from flows.artifacts import in_turn
from flows.at_work import runs_below
from flows.layout import Layout
from flows.prove import benchmark
from flows.publish import report
from flows.server import run_linked

STAGE = """
import signal
import sys
import time
from prefect import flow
from flows.server import run_linked

@flow(name="small stage", flow_run_name="{name}")
def stage(name: str):
    if name == "bad":
        raise ValueError("bad luck")
    if name == "long":
        print("at work", flush=True)
        time.sleep(987)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell script has what it starts with & do about it
run_linked(stage, name=sys.argv[1])
"""


def repository(folder: Path, stages: str) -> Path:
    """A git and DVC repository of these stages; `stage.py NAME` is one that says it is NAME."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    (folder / "dvc.yaml").write_text(stages)
    (folder / "stage.py").write_text(STAGE)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment as a user has it, with no address in it; one database for all, as a new one takes ten seconds."""
    kept = {key: value for key, value in environment("").items() if not key.startswith("PREFECT")}
    return {**kept, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path_factory.mktemp("home"))}


def until(found: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def server_of(process: subprocess.Popen[str]) -> psutil.Process:
    [found] = [one for one in psutil.Process(process.pid).children() if "flows.server_process" in one.cmdline()]
    return found


def test_what_runs_meanwhile_finds_the_server(clean: dict[str, str], tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", "stages: {}\n")
    ui = subprocess.Popen([sys.executable, "-m", "flows", "ui"], cwd=folder, env=clean, stdout=subprocess.PIPE, text=True)
    assert ui.stdout is not None
    address = ui.stdout.readline().split()[0]
    server = server_of(ui)
    with urllib.request.urlopen(f"{address}/api/health", timeout=10) as answer:
        assert answer.read() == b"true"

    subprocess.run([sys.executable, "stage.py", "seen"], cwd=folder, env=clean, check=True)
    with talking_to(f"{address}/api"), get_client(sync_client=True) as client:
        [run] = client.read_flow_runs()
        assert run.name == "seen" and run.state is not None and run.state.is_completed()

    page = folder / "data" / "reports" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("the report")
    (folder / "data" / "secret").write_text("no page")
    with urllib.request.urlopen(f"{address}/reports/report.html", timeout=10) as answer:
        assert answer.read() == b"the report"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/reports/../secret", timeout=10)

    second = subprocess.run([sys.executable, "-m", "flows", "ui"], cwd=folder, env=clean, capture_output=True, text=True,
                            timeout=60)
    assert second.stdout.split()[0] == address
    ui.send_signal(signal.SIGINT)
    assert ui.wait(60) == 0
    until(lambda: not server.is_running())
    assert not list(Path(clean["PREFECT_HOME"]).glob("*.address"))


def test_ctrl_c_ends_a_stage_that_was_started_alone(clean: dict[str, str], tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to all of the stage's processes; the one it reports to must outlive it."""
    folder = repository(tmp_path / "a", "stages: {}\n")
    stage = subprocess.Popen([sys.executable, "stage.py", "long"], cwd=folder, env=clean, text=True, stdout=subprocess.PIPE,
                             start_new_session=True)
    assert stage.stdout is not None  # PIPE above
    assert stage.stdout.readline() == "at work\n"
    server = server_of(stage)
    os.killpg(stage.pid, signal.SIGINT)
    assert stage.wait(30) != 0
    until(lambda: not server.is_running())


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_no_server(number: signal.Signals, clean: dict[str, str], tmp_path: Path) -> None:
    folder = repository(tmp_path / "a", "stages: {sleep: {cmd: sleep 987}}\n")
    run = subprocess.Popen([sys.executable, "-m", "flows", "run"], cwd=folder, env=clean, text=True,
                           stdout=subprocess.DEVNULL)
    family: list[psutil.Process] = []

    def asleep() -> bool:
        family[:] = psutil.Process(run.pid).children(recursive=True)
        return any(one.name() == "sleep" for one in family)

    until(asleep)
    server = server_of(run)
    run.send_signal(number)
    assert run.wait(60) == (143 if number == signal.SIGTERM else -9)
    until(lambda: not server.is_running())
    if number == signal.SIGTERM:
        assert not [one for one in family if one.is_running()]
    else:
        for one in family:
            if one.is_running():
                one.kill()


@pytest.mark.parametrize(("second", "state"), [
    ("bad", "Failed"), pytest.param("good", "Completed", marks=pytest.mark.slow),
])
def test_a_plain_dvc_repro_is_one_run(second: str, state: str, api: str, tmp_path: Path) -> None:
    stages = {"one": {"cmd": "python stage.py one > said", "outs": ["said"]},
              second: {"cmd": f"python stage.py {second}", "deps": ["said"]}}
    folder = repository(tmp_path / second, yaml.safe_dump({"stages": stages}))
    done = subprocess.run(["dvc", "repro", second], cwd=folder, env={**environment(api), "PYTHONPATH": str(ROOT)},
                          capture_output=True)
    assert (done.returncode == 0) == (second == "good")
    until(lambda: not list((folder / ".cinefab").glob("repro-*")))
    with talking_to(api), get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[f"dvc repro {second}"]))
        until(lambda: client.read_flow_runs(flow_run_filter=named)[0].end_time is not None)
        [run] = client.read_flow_runs(flow_run_filter=named)
        assert run.state is not None and run.state.name == state
        assert second == "good" or "bad luck" in (run.state.message or "")
        assert {one.name for one in runs_below(run.id, *StateType)} == {"one", second}


@flow(name="shown")
def shown(line: Path) -> str:
    """The stages that show things, in a line that has been through them: nothing is computed again."""
    params, data = line / "params.yaml", Layout(line / "data")
    benchmark(params, data)
    report(params, data)
    return str(flow_run.id)


def artifacts(run: str) -> dict[str, Artifact]:
    """Those of a run and of the runs below it, by key."""
    with get_client(sync_client=True) as client:
        runs = [UUID(run), *(one.id for one in runs_below(run, *StateType))]
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs)))
    return {str(one.key): one for one in found}


def test_artifacts_of_a_line(line: Path, api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(line / "data", "data")
    shutil.copy(line / "params.yaml", "params.yaml")
    with talking_to(api):
        found = artifacts(run_linked(shown, line=Path()))
    table = str(found["benchmark"].data)
    assert "### dynunet" in table and "| arm | Dice | Hausdorff, px |" in table
    rows = [line for line in table.splitlines() if line.startswith(("| real_geometric |", "| mixed |"))]
    assert len(rows) == 2 and all(re.search(r"\| \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] \|", row) for row in rows)
    counted = {row["what"]: row["value"] for row in json.loads(str(found["counts-through-the-line"].data))}
    assert counted["sampled.sfvd"] == 6 == counted["kept.sfvd"] + sum(
        number for what, number in counted.items() if what.startswith("dropped.sfvd."))
    assert "[report.html](/reports/report.html)" in str(found["report"].data)
    assert found["benchmark-progress"].data == 100


@task(cache_policy=NO_CACHE)
def work(number: int) -> None:
    if number < 0:
        raise ValueError("not this one")


@flow(name="bar")
def bar(numbers: list[int]) -> str:
    with suppress(ValueError):
        list(in_turn("a_bar", "done", [work.submit(number) for number in numbers]))
    return str(flow_run.id)


@pytest.mark.parametrize(("numbers", "progress", "words"), [([1, 2, 3, 4], 100, "4 of 4"), ([1, 2, -1, 4], 50, "2 of 4")])
def test_a_bar_moves_as_runs_end(numbers: list[int], progress: float, words: str, api: str) -> None:
    with talking_to(api):
        found = artifacts(bar(numbers))["a-bar"]
    assert found.data == progress and found.description == f"done: {words}"
