"""What the schedule does, on a line of seconds: the next version where there is one, and none where there is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import checkout, talking_to
from prefect import State
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import StateType

from flows.processes import line_lock
from flows.regenerate import regenerate
from tasks.params import load_params
from tasks.release import ReleasedClip
from tasks.tables import write_table

HERE = Path(__file__).parent
NAME = "fluoroscopy_phantom_synthetic"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def edit(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))


@pytest.fixture
def small_line(tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A committed checkout whose stages take no time, with a folder as remote; it is the working directory."""
    folder = checkout(tmp_path / "line")
    shutil.copy(HERE / "small_stage.py", folder)
    shutil.copy(HERE / "small_line.yaml", folder / "dvc.yaml")
    (folder / "page.txt").write_text("a page")
    for count in (6, 7):
        rows = [ReleasedClip(f"clip{row}", "c", ["p"], "sfvd", None, "", [], 4, 16, 16, f"{row:032x}") for row in range(count)]
        write_table(folder / "manifests" / f"{count}.parquet", rows, ReleasedClip)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store")], check=True)
    git("add", "--all")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "start")
    git("config", "user.name", "a")
    git("config", "user.email", "a@b")
    with talking_to(api):
        yield folder


def run(notify: str | None = None) -> State[Any]:
    return regenerate(notify, return_state=True)


@pytest.fixture
def webhook(small_line: Path) -> Iterator[list[dict[str, str]]]:
    """What arrives at a web server that the block custom-webhook/ops posts to."""
    arrived: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    block = CustomWebhookNotificationBlock(
        name="ops", url=f"http://127.0.0.1:{server.server_port}", json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("ops", overwrite=True)
    yield arrived
    server.shutdown()


def test_versions(small_line: Path, tmp_path: Path) -> None:
    first = run()
    assert (first.name, first.message) == ("Released", f"{NAME}-v1")
    assert git("cat-file", "-t", f"{NAME}-v1") == "tag" and git("status", "--porcelain") == ""

    edit("sfvd: {generator: sfvd, clips: 6", "sfvd: {generator: sfvd, clips: 7")
    second = run()
    assert (second.name, second.message) == ("Released", f"{NAME}-v2")
    assert load_params().release.version == "v2" and "# Every number that can change" in Path("params.yaml").read_text()
    assert f"against {NAME}-v1: 1 clips added, 0 dropped, 6 in both" in git("tag", "--list", "-n99", f"{NAME}-v2")
    assert git("status", "--porcelain") == "" and git("rev-parse", "HEAD") == git("rev-parse", f"{NAME}-v2^{{commit}}")

    edit("version: v2", "version: v1")  # as `cinefab profile` does
    Path("page.txt").write_text("another page about the same clips")
    git("commit", "--quiet", "--all", "--message", "page")
    third = run()
    assert (third.name, third.message) == ("Same release", f"{NAME}-v2 stands")
    assert run().name == "Nothing stale"
    assert git("tag").split() == [f"{NAME}-v1", f"{NAME}-v2"] and load_params().release.version == "v2"

    clone = tmp_path / "clone"
    git("clone", "--quiet", "--branch", f"{NAME}-v1", str(small_line), str(clone))
    subprocess.run(["dvc", "pull", "--quiet", "data/release"], cwd=clone, check=True)
    assert json.loads((clone / "data" / "release" / "release.json").read_text())["counts"]["clips"] == 6


def test_what_is_refused_or_fails_is_no_version_and_told(small_line: Path, webhook: list[dict[str, str]]) -> None:
    edit("audit: {most: 0.05", "audit: {most: 0.0")
    refused = run("custom-webhook/ops")
    assert (refused.name, refused.message) == ("Refused", "audit: 3 of 4 accepted clips are near copies")
    assert refused.is_failed()
    assert webhook[0]["body"] == refused.message and webhook[0]["subject"].endswith("Refused")

    Path("page.txt").write_text("changed and not committed")
    Path("tasks/mine.py").write_text("")
    failed = run("custom-webhook/ops")
    assert failed.name == "Failed" and "page.txt, tasks/mine.py: not committed" in (failed.message or "")
    assert "page.txt, tasks/mine.py" in webhook[1]["body"]
    assert len(webhook) == 2 and git("tag") == "" and git("rev-list", "--count", "HEAD") == "1"


def test_nobody_works_on_the_line_at_the_same_time(small_line: Path) -> None:
    with line_lock():
        skipped = run()
    assert skipped.type == StateType.CANCELLED and skipped.name == "Skipped"
    assert f"process {os.getpid()} on" in (skipped.message or "")

    Path("wait").touch()
    theirs = subprocess.Popen(["dvc", "repro", "--quiet", "sample"])
    while not Path("data/clips").exists():
        assert theirs.poll() is None
        time.sleep(0.1)
    skipped = run()
    assert skipped.name == "Skipped" and f"(process {theirs.pid})" in (skipped.message or "")
    Path("wait").unlink()
    assert theirs.wait(60) == 0
    assert git("tag") == ""
