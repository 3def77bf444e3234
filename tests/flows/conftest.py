"""A checkout of its own for every test that runs the line, one Prefect server a worker, and one undisturbed line for all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.profiles import apply_profiles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on an empty database, in a process of its own."""
    code = (
        "from flows.server import server\nimport sys\nwith server() as url:\n    print(url, flush=True)\n    sys.stdin.read()"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}
    environment.pop("PREFECT_API_URL", None)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("")


def checkout(folder: Path, *profiles: str) -> Path:
    """The working tree as it is now, with these profiles and then the tiny parameters, as a git and DVC repository."""
    folder.mkdir(parents=True)
    for name in (
        "flows",
        "tasks",
        "models",
        "profiles",
        ".dvc",
        "dvc.yaml",
        "params.yaml",
        ".dvcignore",
        ".gitignore",
        "pyproject.toml",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
        else:
            shutil.copy(source, folder / name)
    tiny = Path(__file__).parent / ("tiny_ctrl.yaml" if profiles else "tiny.yaml")
    apply_profiles(folder / "params.yaml", [*(ROOT / "profiles" / f"{name}.yaml" for name in profiles), tiny])
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def environment(api: str) -> dict[str, str]:
    """What `make` gives its commands: this interpreter first, one thread so that parallel tests do not fight, the server."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_API_URL": api,
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }


@contextmanager
def talking_to(api: str) -> Iterator[None]:
    """Flows and clients of this very process use the server, and have told it all when the block ends."""
    with temporary_settings({PREFECT_API_URL: api}):
        yield
        APILogWorker.drain_all(timeout=10)
        EventsWorker.drain_all(timeout=10)


def tree_digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(folder: Path, api: str, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, env=environment(api), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory, worker_id: str, api: str) -> Path:
    """A checkout in which `dvc repro` ran once, undisturbed; one for all of pytest's workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "line"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "dvc.lock").exists():
            command(checkout(folder), api, "dvc", "repro")
    return folder
