"""A plain `dvc repro` as one run. DVC knows nothing of Prefect, so its first stage starts a process that makes the run, keeps a
server for it if none stands, and ends it when DVC ends (`flows.repro_process`); every stage finds the run by DVC's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows.at_work import HERE
from tasks.tables import write_json


@dataclass(frozen=True)
class Repro:
    """What a stage needs to know of the run it belongs to, and the process that keeps it."""

    api: str
    run: str
    keeper: int

    def write(self, note: Path) -> None:
        write_json(note, asdict(self))

    @classmethod
    def read(cls, note: Path) -> Repro | None:
        """None if there is none, or nobody keeps it any more."""
        try:
            found = cls(**json.loads(note.read_text()))
        except FileNotFoundError:
            return None
        return found if psutil.pid_exists(found.keeper) else None


def run_of_this_stage() -> Repro | None:
    """The run of the DVC command that started this process as a stage, made now if this is its first; None if none did."""
    if "DVC_STAGE" not in os.environ or (dvc := _dvc()) is None:
        return None
    note = HERE / f"repro-{dvc.pid}-{dvc.create_time():.0f}.json"
    if (found := Repro.read(note)) is not None:
        return found
    words = [str(dvc.pid), str(note), " ".join(["dvc", *_after_dvc(dvc)])]
    environment = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"}  # it is no stage itself
    # a session of its own and no terminal: Ctrl-C is for DVC, and whoever reads DVC's output need not wait for it
    keeper = subprocess.Popen([sys.executable, "-m", "flows.repro_process", *words], env=environment, start_new_session=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while keeper.poll() is None:
        if (found := Repro.read(note)) is not None:
            return found
        time.sleep(0.05)
    return None  # then this stage is a run of its own


def _dvc() -> psutil.Process | None:
    return next((one for one in psutil.Process().parents() if _is_dvc(one.cmdline())), None)


def _is_dvc(words: list[str]) -> bool:
    return any(Path(word).name == "dvc" for word in words[:3])  # dvc, python dvc, python -m dvc


def _after_dvc(process: psutil.Process) -> list[str]:
    words = process.cmdline()
    return words[next(place for place, word in enumerate(words) if Path(word).name == "dvc") + 1:]
