"""Nothing is lost: whole lines killed, on failing and full disks, damaged, run twice at once, with other parameters.

Small here; `make test-long` does it hundreds of times and writes docs/results/loss.md. What is asserted stands in `trials.py`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trust import trials
from tests.trust.bench import FOLDERS, Bench, Line
from tests.trust.loss_page import RESULTS, page, record
from tests.trust.trials import Row

FAULTS, KILLS = ("EIO", "ENOSPC", "short write"), ("SIGKILL", "torn write and SIGKILL")
WRITERS = {"condition": "a shard and tables", "critic vae": "training states and a checkpoint", "curate": "evidence and tables",
           "release": "a release"}
"""Stages, and what their disk fails under."""
CHANGES = {"conditions": {"deform": 2.5}, "samples": {"sfvd": {"sampling": {"steps": 3}}}, "dataset": {"window": [1, 99]}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    own = Bench(tmp_path_factory.mktemp("bench"))
    yield own
    own.close()


@pytest.fixture(scope="module")
def line(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(bench, tmp_path_factory.mktemp("line"), {})


@pytest.fixture
def rng() -> random.Random:
    return random.Random(int(os.environ.get("CINEFAB_KILL_SEED", "1")))


def failing(bench: Bench) -> None:
    if bench.library is None:
        pytest.skip("a disk is made to fail by a C library on Linux; there is no cc")


def test_killed_at_random_moments_nothing_is_lost(bench: Bench, line: Line, rng: random.Random, tmp_path: Path) -> None:
    assert trials.kills(bench, line, tmp_path, 2, rng)["faults"] == 2


@pytest.mark.parametrize("kind", FAULTS)
def test_a_disk_that_fails_once_costs_nothing(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, kind: str) -> None:
    failing(bench)
    assert trials.faults(bench, line, tmp_path, "condition", kind, 0.02, rng)["faults"]


def test_killed_while_a_checkpoint_is_saved(bench: Bench, line: Line, rng: random.Random, tmp_path: Path) -> None:
    """At the n-th thing that is done to the disk: a half-written one is never taken for a checkpoint."""
    failing(bench)
    assert trials.faults(bench, line, tmp_path, "critic vae", "SIGKILL", 0.04, rng)["ends"]["killed"] == 2


def test_damage_is_named_and_made_good(bench: Bench, line: Line, rng: random.Random, tmp_path: Path) -> None:
    assert set(trials.damage(bench, line, tmp_path, 24, 2, rng)["found"]) == {
        "shard", "store metadata", "commit record", "weights", "checkpoint record", "table", "ledger", "other file"}


def test_two_at_once_end_as_one(bench: Bench, line: Line, tmp_path: Path) -> None:
    assert trials.rivals(bench, line, tmp_path, "condition", 1)["runs"] == 2


def test_other_parameters_leave_nothing_stale(bench: Bench, line: Line, rng: random.Random, tmp_path: Path) -> None:
    other = Line(bench, tmp_path / "other", CHANGES, line, ["condition"])
    assert other.files["conditions/bank.zarr/commits/00000.json"] != line.files["conditions/bank.zarr/commits/00000.json"]
    assert trials.changed(bench, line, other, tmp_path, ["condition"], 2, rng)["changed back"] == 1


def test_the_page_is_what_the_trials_found() -> None:
    found = json.loads((RESULTS / "loss.json").read_text())
    assert (RESULTS / "loss.md").read_text() == page(found)
    assert found["trials"]["killed at random instants"]["faults"] >= 200
    assert found["trials"]["bits flipped and ends cut off"]["faults"] >= 500
    every = {name for name, row in found["trials"].items() if "of" in row and row["faults"] == row["of"]}
    assert every == {*(f"{kind} under {what}" for kind in FAULTS for what in WRITERS.values()),
                     *(f"{kind} under {WRITERS['critic vae']}" for kind in KILLS)}


# ---- the long form


@pytest.fixture
def noted(bench: Bench, request: pytest.FixtureRequest) -> Callable[[str, Callable[[], Row]], None]:
    def note(trial: str, do: Callable[[], Row]) -> None:
        bench.peak_mb, began = 0.0, time.monotonic()
        row = do()
        record(trial, {**row, "seconds": round(time.monotonic() - began, 1), "peak_mb": round(bench.peak_mb)})

    return note


Noted = Callable[[str, Callable[[], Row]], None]


@pytest.mark.long
def test_two_hundred_kills(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, noted: Noted) -> None:
    noted("killed at random instants", lambda: trials.kills(bench, line, tmp_path, 200, rng))


@pytest.mark.long
def test_five_hundred_damages(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, noted: Noted) -> None:
    noted("bits flipped and ends cut off", lambda: trials.damage(bench, line, tmp_path, 500, 64, rng))


@pytest.mark.long
def test_a_full_disk(bench: Bench, line: Line, tmp_path: Path, noted: Noted) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    subprocess.run(["umount", disk], check=True)
    noted("a disk that is full", lambda: trials.full_disk(bench, line, tmp_path, disk, range(64, 2112, 128)))


@pytest.mark.long
@pytest.mark.parametrize("stage", ["prepare", "critic vae", "sample", "release"])
def test_rivals(bench: Bench, line: Line, tmp_path: Path, noted: Noted, stage: str) -> None:
    noted(f"`{stage}` twice at once", lambda: trials.rivals(bench, line, tmp_path, stage, 5))


@pytest.mark.long
def test_changed_parameters(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, noted: Noted) -> None:
    other = Line(bench, tmp_path / "other", CHANGES)
    noted("parameters changed, killed on the way",
          lambda: trials.changed(bench, line, other, tmp_path, list(FOLDERS), 10, rng))


@pytest.mark.long
@pytest.mark.parametrize("kind", KILLS)
def test_killed_at_every_step_of_a_checkpoint(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, noted: Noted,
                                              kind: str) -> None:
    failing(bench)
    noted(f"{kind} under {WRITERS['critic vae']}", lambda: trials.faults(bench, line, tmp_path, "critic vae", kind, 1, rng))


@pytest.mark.long
@pytest.mark.parametrize("stage", WRITERS)
@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault(bench: Bench, line: Line, rng: random.Random, tmp_path: Path, noted: Noted, kind: str, stage: str) -> None:
    failing(bench)
    noted(f"{kind} under {WRITERS[stage]}", lambda: trials.faults(bench, line, tmp_path, stage, kind, 1, rng))
