"""What the schedule does, on a line of seconds: the next version where there is one, and none where there is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Webhook, commit, small_checkout, talking_to
from prefect import State
from prefect.client.schemas.objects import StateType

from flows.at_work import line_lock
from flows.regenerate import regenerate
from tasks.params import load_params
from tasks.repository import git

NAME = "fluoroscopy_phantom_synthetic"


def edit(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))


@pytest.fixture
def small_line(tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A committed checkout whose stages take no time, with a folder as remote; it is the working directory."""
    folder = small_checkout(tmp_path / "line")
    commit(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_API_URL", api)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with talking_to(api):
        yield folder


def run(notify: str | None = None) -> State[Any]:
    return regenerate(notify, return_state=True)


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


def test_what_is_refused_or_fails_is_no_version_and_told(small_line: Path, webhook: Webhook) -> None:
    webhook.save_block()
    edit("audit: {most: 0.05", "audit: {most: 0.0")
    refused = run("custom-webhook/ops")
    assert (refused.name, refused.message) == ("Refused", "audit: 3 of 4 accepted clips are near copies")
    assert refused.is_failed()
    assert webhook.arrived[0]["body"] == refused.message and webhook.arrived[0]["subject"].endswith("Refused")

    Path("page.txt").write_text("changed and not committed")
    Path("tasks/mine.py").write_text("")
    failed = run("custom-webhook/ops")
    assert failed.name == "Failed" and "page.txt, tasks/mine.py: not committed" in (failed.message or "")
    assert "page.txt, tasks/mine.py" in webhook.arrived[1]["body"]
    assert len(webhook.arrived) == 2 and git("tag") == "" and git("rev-list", "--count", "HEAD") == "1"


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
