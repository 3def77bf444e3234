"""The workbench of the tests of loss: a worker whose disk can fail, a whole line to compare with, and what to compare."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.trust.tiny_stages import write_params

ROOT = Path(__file__).parents[2]
Job = dict[str, Any]


class Bench:
    """One worker process. `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library = build(folder / "failing_disk.so")
        preload = {"LD_PRELOAD": str(self.library)} if self.library else {}
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "tests.trust.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **preload, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
                 "PREFECT_HOME": str(folder / "prefect")},
        )
        self.peak_mb = 0.0

    def close(self) -> None:
        self._worker.communicate()

    def job(self, params: Path, data: Path, wanted: Sequence[str] | None = None, *, kind: str | None = None,
            nth: int = 0) -> Job:
        """A run of stages; with `kind` a fault at the n-th thing done to the disk below the data folder."""
        fault = {} if kind is None else {"kind": kind, "nth": nth, "root": str(data)}
        return {"do": "run", "paths": {"params": str(params), "data": str(data)}, "more": {"wanted": wanted}, **fault}

    def start(self, *jobs: Job) -> list[int]:
        """Have jobs run side by side; returns their process ids, each its own group's."""
        numbered = [{**job, "said": str(self.folder / f"said{number}")} for number, job in enumerate(jobs)]
        self._ask(json.dumps(numbered))
        return list(json.loads(self._answer()))

    def results(self, seconds: float | None = None) -> list[dict[str, Any]] | None:
        """How they ended; None if they have not within so many seconds."""
        assert self._worker.stdout is not None
        if not select.select([self._worker.stdout], [], [], seconds)[0]:
            return None
        found = list(json.loads(self._answer()))
        self.peak_mb = max([self.peak_mb, *(one["peak_mb"] for one in found)])
        return found

    def do(self, *jobs: Job) -> list[dict[str, Any]]:
        self.start(*jobs)
        found = self.results()
        assert found is not None
        return found

    def do_or_kill(self, job: Job, seconds: float) -> dict[str, Any]:
        """A job whose process group is killed after so many seconds, unless it has ended."""
        (pid,) = self.start(job)
        if (found := self.results(seconds)) is None:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # not yet the leader of a group
                os.kill(pid, signal.SIGKILL)
            found = self.results()
            assert found is not None
        return found[0]

    def _ask(self, line: str) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(line + "\n")
        self._worker.stdin.flush()

    def _answer(self) -> str:
        assert self._worker.stdout is not None
        return self._worker.stdout.readline()


def build(out: Path) -> Path | None:
    """The library of a failing disk; None without a C compiler, or elsewhere than on Linux."""
    if sys.platform != "linux" or (compiler := shutil.which("cc")) is None:
        return None
    source = Path(__file__).parent / "failing_disk.c"
    subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", out, source, "-ldl"], check=True)
    return out


class Line:
    """A line that ran undisturbed.

    Args:
        changes: over the parameters of the tiny line.
        over, wanted: another line, and the stages that are run on a copy of it without their folders; None: all, on nothing.

    Attributes:
        params, data: its parameter file and folder.
        files: sha256 of every file by name.
        seconds: what it took.
    """

    def __init__(self, bench: Bench, folder: Path, changes: dict[str, Any], over: Line | None = None,
                 wanted: Sequence[str] | None = None) -> None:
        self.params = write_params(folder, changes)
        self.data = folder / "data" if over is None else over.copy(folder, wanted or [])
        (done,) = bench.do(bench.job(self.params, self.data, wanted))
        assert done["error"] is None and not done["killed"], done
        self.seconds: float = done["seconds"]
        self.files = digests(self.data)

    def copy(self, folder: Path, without: Sequence[str] = ()) -> Path:
        """A copy of the data in a new folder below, without these stages' folders; their names are `FOLDERS`'s."""
        made = Path(tempfile.mkdtemp(dir=folder)) / "data"
        shutil.copytree(self.data, made)
        for name in without:
            shutil.rmtree(made / FOLDERS[name])
        return made


FOLDERS = {"prepare": "prepared", "condition": "conditions", "train sfvd": "checkpoints/sfvd", "critic vae": "critics/vae",
           "critic segmenter": "critics/segmenter", "sample": "clips/sfvd", "curate": "decisions/sfvd", "audit": "audit/sfvd",
           "benchmark": "benchmark", "release": "release"}
"""The folder each stage writes."""


def digests(data: Path) -> dict[str, str]:
    """sha256 of every file but locks, by name."""
    return {path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(data.rglob("*")) if path.is_file() and path.suffix != ".lock"}


def units(log: Path) -> list[list[tuple[Any, ...]]]:
    """The units of work begun in each attempt, in order; attempts end with a line `null`."""
    found: list[list[tuple[Any, ...]]] = [[]]
    for line in log.read_text().splitlines() if log.exists() else []:
        if (words := json.loads(line)) is None:
            found.append([])
        else:
            found[-1].append(tuple(words))
    return found
