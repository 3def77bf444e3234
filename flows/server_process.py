"""The Prefect server as a process of its own that ends with the one that started it, whatever ends that: its standard input is
a pipe from there. Beside Prefect's pages it has the line's own, so that a link to the report works from them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import uvicorn
from prefect.server.api.server import create_app
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

PAGES = ("reports", "repeats")
"""Folders of `data` that are served under their own name."""


class Pages(StaticFiles):
    async def check_config(self) -> None:
        """A folder that is not there yet is a page that is not found."""


def serve(port: int, data: Path = Path("data")) -> None:
    app = create_app()
    own = [Mount(f"/{name}", Pages(directory=data / name, html=True, check_dir=False)) for name in PAGES]
    app.router.routes[:0] = own  # before Prefect's page, which takes every address
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning", timeout_graceful_shutdown=3))

    def end_with_starter() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_starter, daemon=True).start()
    server.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
