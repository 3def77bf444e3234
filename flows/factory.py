"""The whole line as one run: DVC decides what is stale and in which order, every stage's flow appears as a child.

`dvc repro` and this flow run the same commands and leave the same dvc.lock.
"""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.at_work import line_lock, reap
from flows.server import run_linked, server
from flows.steps import dvc_repro


def _command() -> str:
    return " ".join(["cinefab run", *flow_run.parameters["targets"]])


@flow(name="factory", flow_run_name=_command)
def factory(targets: list[str]) -> None:
    """Bring these stages up to date; no targets means all."""
    dvc_repro(targets)


def run(targets: list[str]) -> None:
    """The factory flow with one server for the whole job.

    Raises:
        BusyError: if somebody else is bringing the line up to date.
    """
    with line_lock(), server():
        reap()
        run_linked(factory, targets=targets)
