"""The line by its other ways: the factory flow, and `dvc repro` killed at random moments. Both end as `dvc repro` does.

A file of its own, so that it runs beside `test_line.py`: the two take most of the suite's time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import checkout, command, environment, tree_digest

from tasks.verify import verify_tree


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, api: str) -> tuple[Path, str]:
    """A checkout in which the factory flow ran once, and what it printed."""
    folder = checkout(tmp_path_factory.mktemp("factory") / "checkout")
    return folder, command(folder, api, "python", "-m", "flows", "run")


def test_the_factory_flow_ends_with_the_report(factory: tuple[Path, str]) -> None:
    folder, out = factory
    assert out.strip().splitlines()[-1] == str(folder / "data" / "reports" / "report.html")


def test_the_factory_flow_leaves_the_same_lock(factory: tuple[Path, str], line: Path) -> None:
    folder, _ = factory
    assert (folder / "dvc.lock").read_text() == (line / "dvc.lock").read_text()
    assert tree_digest(folder / "data" / "release") == tree_digest(line / "data" / "release")


def repro_with_kills(folder: Path, api: str, rng: random.Random, kills: int, longest: float) -> int:
    """`dvc repro`, its whole process group killed at random moments, until it ends by itself; returns the kills that hit."""
    hit = 0
    for attempt in range(kills + 1):
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env=environment(api),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if attempt < kills:
            try:
                process.wait(rng.uniform(1, longest))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                hit += 1
        if process.wait(800) == 0:
            return hit
        time.sleep(1)  # DVC's lock of the dead process is refused for a moment
    raise AssertionError("dvc repro did not end by itself")


@pytest.mark.slow
def test_killed_at_random_moments_the_release_is_the_same(line: Path, api: str, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    seed = int(os.environ.get("CINEFAB_KILL_SEED", "1"))
    hit = repro_with_kills(folder, api, random.Random(seed), kills=2, longest=25)  # hundreds: tests/trust/test_loss.py
    assert hit >= 1
    assert tree_digest(folder / "data" / "release") == tree_digest(line / "data" / "release")
    assert verify_tree(folder / "data")[1] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(5))
def test_killed_many_times(line: Path, api: str, tmp_path: Path, seed: int) -> None:
    folder = checkout(tmp_path / "checkout")
    repro_with_kills(folder, api, random.Random(100 + seed), kills=15, longest=20)
    assert tree_digest(folder / "data" / "release") == tree_digest(line / "data" / "release")
