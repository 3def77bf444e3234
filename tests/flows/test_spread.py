"""Several processes and machines, as far as one machine can play them: Dask's workers and those that train together.

Slow: every worker imports torch. What is killed here is really killed.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import command, environment, tree_digest

from tasks.store import ClipStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def copy_of(line: Path, folder: Path, edit: Callable[[dict[str, Any]], object], *drop: str) -> Path:
    """The undisturbed line in a folder of its own, with other parameters and without these folders of data."""
    shutil.copytree(line, folder)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    edit(tree)
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    for name in drop:
        shutil.rmtree(folder / "data" / name)
    return folder


def wait_for(condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def stage(folder: Path, api: str, *words: str) -> subprocess.Popen[bytes]:
    command_line = [sys.executable, "-m", "flows", *words]
    return subprocess.Popen(command_line, cwd=folder, env=environment(api), stdout=subprocess.DEVNULL)


def test_workers_of_dask_make_the_same_bytes(line: Path, api: str, tmp_path: Path) -> None:
    """Sampled, scored and benchmarked by two processes: every output is what threads made, and no stage goes stale."""
    folder = copy_of(line, tmp_path / "dask", lambda tree: tree.update(engine={"kind": "dask", "workers": 2}),
                     "clips", "decisions", "benchmark", "timing")
    for words in (("sample", "sfvd"), ("curate", "sfvd"), ("benchmark",)):
        command(folder, api, "python", "-m", "flows", *words)
    for name in ("clips", "decisions", "benchmark"):
        assert tree_digest(folder / "data" / name) == tree_digest(line / "data" / name), name
    took = json.loads((folder / "data/timing/sample/sfvd.json").read_text())
    assert took["workers"] == 2 and took["clips"] == 6
    assert "Data and pipelines are up to date" in command(folder, api, "dvc", "status")


@pytest.fixture
def scheduler(api: str, tmp_path: Path) -> Iterator[str]:
    """The address of a Dask scheduler, as it would run on some machine."""
    process = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                                "--no-dashboard"], stderr=subprocess.PIPE, text=True, env=environment(api))
    assert process.stderr is not None
    for text in process.stderr:
        if found := re.search(r"tcp://[0-9.:]+", text):
            break
    yield found.group()  # type: ignore[union-attr]
    process.kill()
    process.wait()


def test_a_killed_worker_costs_its_shard(line: Path, api: str, tmp_path: Path, scheduler: str) -> None:
    """Of two workers one is killed while it samples; the other makes what is left, and what was finished stays as it is."""

    def edit(tree: dict[str, Any]) -> None:
        tree["engine"] = {"kind": "dask", "address": scheduler}
        tree["samples"]["sfvd"] |= {"clips": 40, "shard_clips": 4}
        tree["samples"]["sfvd"]["sampling"]["steps"] = 60

    folder = copy_of(line, tmp_path / "killed", edit, "clips", "timing")
    workers = [subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1",
                                 "--no-nanny", "--no-dashboard", "--name", str(number)],
                                cwd=folder, env=environment(api), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for number in range(2)]
    commits = folder / "data/clips/sfvd/clips.zarr/commits"
    try:
        run = stage(folder, api, "sample", "sfvd")
        wait_for(lambda: len(list(commits.glob("0*.json"))) >= 3)
        busy = wait_for(lambda: next((one for one in workers if psutil.Process(one.pid).cpu_percent(0.2) > 20), None))
        busy.send_signal(signal.SIGKILL)
        finished = {path.name: path.stat().st_mtime_ns for path in commits.glob("0*.json")}
        assert len(finished) < 10
        assert run.wait(600) == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    now = {path.name: path.stat().st_mtime_ns for path in commits.glob("0*.json")}
    assert len(now) == 10 and {name: now[name] for name in finished} == finished
    other = copy_of(folder, tmp_path / "undisturbed", lambda tree: tree.update(engine={"kind": "threads"}), "clips")
    command(other, api, "python", "-m", "flows", "sample", "sfvd")
    stores = [ClipStore.open(one / "data/clips/sfvd/clips.zarr") for one in (folder, other)]
    assert stores[0].digest == stores[1].digest
    assert tree_digest(folder / "data/clips") == tree_digest(other / "data/clips")


def test_processes_that_train_together_are_killed_and_resume(line: Path, api: str, tmp_path: Path) -> None:
    """Only the stage's own process is killed: its children must not go on writing beside the one that is started next."""

    def edit(tree: dict[str, Any]) -> None:
        tree["engine"] = {"processes": 2}
        for phase in ("psi", "scene", "motion"):
            tree["generators"]["sfvd"][phase]["train"] |= {"steps": 30, "batch_size": 1, "accumulate": 2}

    whole, killed = (copy_of(line, tmp_path / name, edit, "checkpoints") for name in ("whole", "killed"))
    command(whole, api, "python", "-m", "flows", "train", "sfvd")
    first = stage(killed, api, "train", "sfvd")
    wait_for((killed / "data/checkpoints/sfvd/.state/scene.safetensors").exists)
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    first.kill()
    first.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert not (killed / "data/checkpoints/sfvd/checkpoint.json").exists()
    command(killed, api, "python", "-m", "flows", "train", "sfvd")
    assert tree_digest(killed / "data/checkpoints") == tree_digest(whole / "data/checkpoints")
    assert not (killed / "data/checkpoints/sfvd/.state").exists()
