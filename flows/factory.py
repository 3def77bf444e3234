"""The whole line as one run: DVC decides what is stale and in which order, every stage's flow appears as a child.

`dvc repro` and this flow run the same commands and leave the same dvc.lock.
"""

from __future__ import annotations

from prefect import flow

from flows.server import server
from flows.steps import dvc_repro


@flow(name="factory")
def factory(targets: list[str]) -> None:
    """Bring these stages up to date; no targets means all."""
    dvc_repro(targets)


def run(targets: list[str]) -> None:
    """The factory flow with one server for the whole job."""
    with server():
        factory(targets)
