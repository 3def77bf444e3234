"""One Prefect server for one job, and child runs that appear under their parent.

A whole line shares one, a stage started alone has its own, and that of `cinefab ui` or `cinefab serve` is found by everything
that runs in the same checkout. Prefect would bring one up by itself, but Ctrl-C ends that one too: the stage, which then has
nobody to report its end to, tried for two and a half minutes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import Flow, Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Pending

from flows.at_work import alive
from flows.repro import run_of_this_stage

PARENT = "CINEFAB_PARENT_RUN"
"""Environment variable by which the factory flow tells the stages DVC starts who their parent is."""
USUAL_PORT = 4200


@contextmanager
def server(known: bool = False) -> Iterator[str]:
    """The address of the API: the one Prefect's settings name, else of the checkout's standing server, else of a server that
    lives as long as the block, and ends with this process whatever ends it.

    Args:
        known: a server that is started here is the checkout's standing one, at Prefect's usual port if that is free.
    """
    # by the environment, which `_reporting_to` changes for what is started, or by Prefect's own settings
    if (found := os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value() or standing()) is not None:
        with _reporting_to(found):
            yield found
        return
    port = _free_port(known)
    url = f"http://127.0.0.1:{port}/api"
    log = PREFECT_HOME.value() / "server.log"
    # the page asks its own server, by whatever address a browser has it; pages of other origins may not
    origin = {"PREFECT_SERVER_UI_API_URL": "/api", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api")}
    with log.open("wb") as said:  # a session of its own: Ctrl-C is for this process, which still has to report its end
        process = subprocess.Popen([sys.executable, "-m", "flows.server_process", str(port)], env={**os.environ, **origin},
                                   start_new_session=True, stdin=subprocess.PIPE, stdout=said, stderr=said)
    try:
        _wait(url, process, log)
        with _reporting_to(url), _known(url) if known else nullcontext():
            yield url
    finally:
        assert process.stdin is not None  # PIPE above
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def standing() -> str | None:
    """The address that a server of this checkout and machine left, if its starter is alive and it answers."""
    note = _note()
    try:
        with FileLock(note.with_suffix(".lock"), timeout=0):
            return None  # nobody holds it
    except Timeout:
        pass
    try:
        url = note.read_text()
    except FileNotFoundError:
        return None
    return url if answers(url) else None


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except OSError:  # refused, reset, late or not 200
        return False
    return True


def _note() -> Path:
    return PREFECT_HOME.value() / f"server-{socket.gethostname()}.address"


@contextmanager
def _known(url: str) -> Iterator[None]:
    note = _note()
    with FileLock(note.with_suffix(".lock"), thread_local=False):
        note.write_text(url)
        try:
            yield
        finally:
            note.unlink()


@contextmanager
def _reporting_to(url: str) -> Iterator[None]:
    """This process and those it starts report to the server, and have told it all when the block ends."""
    before = os.environ.get("PREFECT_API_URL")
    if url == before == PREFECT_API_URL.value():
        yield
        return
    os.environ["PREFECT_API_URL"] = url  # for the stages' processes; this one has read its settings already
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield
            finally:  # what is queued must leave before the server ends: retrying to a dead one held the exit for a minute
                APILogWorker.drain_all(timeout=10)
                EventsWorker.drain_all(timeout=10)
    finally:
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


def _free_port(usual: bool) -> int:
    for wanted in (USUAL_PORT, 0) if usual else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("this machine has no free port for the Prefect server")


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the Prefect server ended at once with status {process.returncode}; {log} says why")
        if answers(url):
            return
        time.sleep(0.3)
    raise RuntimeError(f"the Prefect server at {url} did not answer within {seconds:.0f} s; {log} may say why")


def _create_run(flow: Flow[..., Any], parameters: dict[str, Any], parent: str | None, tag: str) -> FlowRun:
    """As Prefect does for flows that flows call: a child stands in its parent as a task run, whose state follows its own."""
    with get_client(sync_client=True) as client:
        place = None
        if parent is not None:
            own, key = Task(fn=flow.fn, name=flow.name), uuid.uuid4().hex
            place = client.create_task_run(own, uuid.UUID(parent), key, name=flow.name, state=Pending()).id
        return client.create_flow_run(flow, parameters=parameters, parent_task_run_id=place, tags=[tag])


def run_linked(flow: Flow[..., Any], **parameters: Any) -> Any:
    """Run a flow in this process, as a child of the run that started us: the factory's, or that of a plain `dvc repro`.

    `parent_task_run_id` and `run_flow` are not prominent public API: they are used here only, against a pinned Prefect,
    and a test checks that the server lists the child under its parent.
    """
    parent, url = os.environ.get(PARENT), None
    if parent is None and (repro := run_of_this_stage()) is not None:
        parent, url = repro.run, repro.api
    with alive() as process, _reporting_to(url) if url else server():
        return run_flow(flow, flow_run=_create_run(flow, parameters, parent, process), parameters=parameters)
