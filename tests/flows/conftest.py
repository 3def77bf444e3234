"""A checkout of its own for every test that runs the line, one Prefect server a worker, and one undisturbed line for all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.profiles import apply_profiles
from tasks.release import ReleasedClip
from tasks.tables import write_table

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


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> None:
    """The whole checkout, with a folder beside it as DVC's remote."""
    git(folder, "config", "user.name", "a")
    git(folder, "config", "user.email", "a@b")
    dvc = Path(sys.executable).parent / "dvc"
    subprocess.run([dvc, "remote", "add", "--quiet", "--default", "store", folder.parent / "store"], cwd=folder, check=True)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")


def small_checkout(folder: Path) -> Path:
    """As `checkout`, but with stages that take no time, of `small_line.yaml`; for 6 to 8 clips of `sfvd`."""
    checkout(folder)
    shutil.copy(Path(__file__).parent / "small_stage.py", folder)
    shutil.copy(Path(__file__).parent / "small_line.yaml", folder / "dvc.yaml")
    (folder / "page.txt").write_text("a page")
    for count in (6, 7, 8):
        rows = [ReleasedClip(f"clip{row}", "c", ["p"], "sfvd", None, "", [], 4, 16, 16, f"{row:032x}") for row in range(count)]
        write_table(folder / "manifests" / f"{count}.parquet", rows, ReleasedClip)
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


class Webhook:
    """A web server, and what arrives at it when Prefect's block custom-webhook/ops sends something."""

    def __init__(self) -> None:
        arrived: list[dict[str, str]] = []

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.arrived, self.server = arrived, HTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def save_block(self) -> None:
        """On the Prefect server that this process talks to."""
        form = {"subject": "{{subject}}", "body": "{{body}}"}
        url = f"http://127.0.0.1:{self.server.server_port}"
        CustomWebhookNotificationBlock(name="ops", url=url, json_data=form).save("ops", overwrite=True)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    own = Webhook()
    yield own
    own.server.shutdown()


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
