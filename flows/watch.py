"""`cinefab ui`: the server of this checkout, for as long as somebody wants to look."""

from __future__ import annotations

import signal
import time

import typer

from flows.at_work import reap, unfinished
from flows.server import server, standing


def watch() -> None:
    """Prints the address and returns on Ctrl-C, but after the runs that report to it, which a server that goes would break; at
    once, if another process of this checkout keeps a server."""
    if (found := standing()) is not None:
        typer.echo(f"{found.removesuffix('/api')} shows the runs already")
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell script has what it starts with & ignore it
    with server(known=True) as url:
        reap()
        typer.echo(f"{url.removesuffix('/api')} shows the runs; Ctrl-C ends it")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            _wait_for_runs()


def _wait_for_runs() -> None:
    try:
        reap()
        if names := unfinished():
            typer.echo(f"\nstill at work: {', '.join(names)}; ends after them, or with Ctrl-C now")
        while unfinished():
            time.sleep(1)
            reap()
    except KeyboardInterrupt:
        typer.echo()
