"""Who is at work in this checkout. A process holds file locks, which end with it whatever ends it: so a run whose process was
killed can be told from one that takes long, and a line that somebody works on from one that was left half done."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

HERE = Path(".cinefab")
PROCESS = "process:"
"""How the tag of a run begins that names the lock its process holds."""
UNFINISHED = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


class BusyError(ValueError):
    """Another process brings this line up to date."""


class StageFailedError(ValueError):
    """A stage that DVC started failed and has said why."""


@contextmanager
def line_lock() -> Iterator[None]:
    """The whole line to oneself, among cinefab's own commands and DVC's.

    Raises:
        BusyError: naming the process that has it, at once; nobody waits.
    """
    path = HERE / "line.lock"
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"the line is being brought up to date by {path.read_text() or 'another process'}") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}")
        if found := _dvc_at_work():
            raise BusyError(f"the line is being worked on by {found}")
        yield
    finally:
        lock.release()


def _dvc_at_work(noted: Path = Path(".dvc/tmp/rwlock")) -> str | None:
    """A live command among those that DVC notes down while they read or write outputs."""
    try:
        found = json.loads(noted.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # the latter while it is being written
        return None
    for one in [*found.get("write", {}).values(), *(one for readers in found.get("read", {}).values() for one in readers)]:
        if psutil.pid_exists(one["pid"]):
            return f"{one['cmd']} (process {one['pid']})"
    return None


@contextmanager
def alive() -> Iterator[str]:
    """A tag for the run of this process, true as long as the block lasts."""
    path = HERE / "processes" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, thread_local=False):
        try:
            yield PROCESS + path.name
        finally:
            path.unlink(missing_ok=True)


def end_tree(pid: int) -> None:
    """Ask a process and all that it started to end; DVC does not pass that on to its stages."""
    try:
        top = psutil.Process(pid)
        asked = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in asked:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    psutil.wait_procs(asked, timeout=30)


def reap() -> list[str]:
    """Mark as crashed the runs whose process is gone; returns their names.

    A run is touched only if its lock lies in this checkout and nobody holds it. Runs of other checkouts and machines that share
    the server are left alone, however long they have been silent.
    """
    names: list[str] = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=_in(UNFINISHED))):
            for tag in run.tags:
                path = HERE / "processes" / Path(tag.removeprefix(PROCESS)).name
                if not tag.startswith(PROCESS) or not path.exists():
                    continue
                try:
                    with FileLock(path, timeout=0):
                        names += _bury(client, run, path.name)
                        path.unlink()
                except Timeout:  # alive
                    continue
    return names


def _bury(client: SyncPrefectClient, run: FlowRun, process: str) -> list[str]:
    """The run, and the runs it had started in its own process; those with a process of their own speak for themselves."""
    state: State[None] = Crashed(message=f"its process ({process}) is gone")
    client.set_flow_run_state(run.id, state, force=True)
    names = [run.name]
    for child in _below(client, run.id, UNFINISHED):
        if not any(tag.startswith(PROCESS) for tag in child.tags):
            names += _bury(client, child, process)
    return names


def unfinished() -> list[str]:
    """Names of the runs whose processes report to this server."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=_in(UNFINISHED)))
    return [run.name for run in runs if any(tag.startswith(PROCESS) for tag in run.tags)]


def runs_below(parent: uuid.UUID | str, *states: StateType) -> list[FlowRun]:
    """The runs in these states that this one started, in its own process or another."""
    with get_client(sync_client=True) as client:
        return _below(client, uuid.UUID(str(parent)), states)


def _below(client: SyncPrefectClient, parent: uuid.UUID, states: Sequence[StateType]) -> list[FlowRun]:
    children = FlowRunFilter(state=_in(states), parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    return client.read_flow_runs(flow_run_filter=children)


def _in(states: Sequence[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
