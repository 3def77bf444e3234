"""One Prefect server for one job, and child runs that appear under their parent.

A stage started alone needs no server: Prefect brings one up inside the process, at about ten seconds a stage. A whole line
shares one instead.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.processes import alive

PARENT = "CINEFAB_PARENT_TASK_RUN"
"""Environment variable by which the factory flow tells the stages DVC starts who their parent is."""


@contextmanager
def server() -> Iterator[str]:
    """The address of the API: the one PREFECT_API_URL names, else of a server that lives as long as the block."""
    if (url := os.environ.get("PREFECT_API_URL")) is not None:
        yield url
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ["PREFECT_API_URL"] = url  # for the stages' processes; this one has read its settings already
    try:
        _wait(url, process)
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
            # what is still queued for the server must leave before it ends: retrying to a dead one held the exit for a minute
            APILogWorker.drain_all(timeout=10)
            EventsWorker.drain_all(timeout=10)
    finally:
        del os.environ["PREFECT_API_URL"]
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(
                f"the Prefect server ended at once with status {process.returncode}; run 'prefect server start' to see why"
            )
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise RuntimeError(f"the Prefect server at {url} did not answer within {seconds:.0f} s")


def _wait_for_task_run(client: SyncPrefectClient, task_run: uuid.UUID, seconds: float = 30) -> None:
    """Prefect reports task runs to the server in the background; a child cannot refer to one that has not arrived."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.read_task_run(task_run)
            return
        except ObjectNotFound:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def run_linked(flow: Flow[..., Any], **parameters: Any) -> Any:
    """Run a flow in this process, as a child of the factory's run when that started us.

    `parent_task_run_id` and `run_flow` are not prominent public API: they are used here only, against a pinned Prefect,
    and a test checks that the server lists the child under its parent.
    """
    parent = uuid.UUID(os.environ[PARENT]) if PARENT in os.environ else None
    with alive() as process:
        with get_client(sync_client=True) as client:
            if parent is not None:
                _wait_for_task_run(client, parent)
            flow_run = client.create_flow_run(flow, parameters=parameters, parent_task_run_id=parent, tags=[process])
        return run_flow(flow, flow_run=flow_run, parameters=parameters)
