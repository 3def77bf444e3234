"""`cinefab ui`: the server of this checkout, for as long as somebody wants to look."""

from __future__ import annotations

import threading

import typer

from flows.processes import reap
from flows.server import server, standing


def watch() -> None:
    """Prints the address and returns on Ctrl-C; at once, if another process of this checkout keeps a server."""
    if (found := standing()) is not None:
        typer.echo(f"{found.removesuffix('/api')} shows the runs already")
        return
    with server(known=True) as url:
        reap()
        typer.echo(f"{url.removesuffix('/api')} shows the runs; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo()
