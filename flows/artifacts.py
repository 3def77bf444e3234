"""What people look at in the Prefect UI: how far a stage is, counts as a table, clips as a contact sheet, the benchmark, the
report as a link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.futures import PrefectFuture

from flows.layout import Layout
from tasks.account import NAMES, BenchmarkAccount, interval
from tasks.pictures import store_sheet


def in_turn(key: str, what: str, runs: Sequence[PrefectFuture[Any]]) -> Iterator[Any]:
    """The results of task runs, one after the other, with a bar that moves as they end.

    Raises:
        Exception: that of the first that failed.
    """
    if not runs:
        return
    bar = create_progress_artifact(0, key=_key(key), description=f"{what}: 0 of {len(runs)}")
    assert isinstance(bar, UUID)  # a coroutine only where it is called from asynchronous code
    for done, run in enumerate(runs, 1):
        yield run.result()
        update_progress_artifact(bar, progress=100 * done / len(runs), description=f"{what}: {done} of {len(runs)}")


def counts(key: str, facts: dict[str, Any], description: str | None = None) -> None:
    """A two-column table of the plain values in `facts`, nested ones by dotted name."""
    rows = [{"what": name, "value": value} for name, value in _flatten(facts)]
    create_table_artifact(key=_key(key), table=rows, description=description)


def sheet(key: str, store: Path) -> None:
    """A contact sheet of the first clips of a store, inside the artifact itself: no file server is needed."""
    create_image_artifact(key=_key(key), image_url=store_sheet(store))


def benchmark_table(key: str, found: BenchmarkAccount) -> None:
    """Arms by metrics, one table a network, and the verdict."""
    text = [found.sentence]
    for network, arms in found.metrics.items():
        lines = [["arm", *(NAMES[metric] for metric in found.shown)], ["---"] * (1 + len(found.shown))]
        lines += [[arm, *(_cell(cells, metric) for metric in found.shown)] for arm, cells in arms.items()]
        text.append(f"### {network}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    tested = ", ".join(f"{what.replace('_', ' ')}: {number}" for what, number in found.counts.items())
    text.append(f"Means [95 % bootstrap intervals over patients]; {tested}. Differences and their tests are in the report.")
    create_markdown_artifact(key=_key(key), markdown="\n\n".join(text))


def link(key: str, page: Path) -> None:
    """To the page at the server of this checkout, which shows the line's pages; to the file, if it is of another folder."""
    path, served = page.resolve(), Layout().root.resolve()
    address = f"/{path.relative_to(served)}" if path.is_relative_to(served) else path.as_uri()
    create_markdown_artifact(key=_key(key), markdown=f"[{page.name}]({address})\n\n`{path}`")


def _cell(cells: dict[str, Any], metric: str) -> str:
    return interval(cells.get(metric), 2 if NAMES[metric].endswith("px") else 3)


def _key(words: str) -> str:
    return words.lower().replace("_", "-").replace(" ", "-")  # Prefect takes small letters, digits and dashes


def _flatten(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            rows.append((f"{prefix}{name}", value))
    return rows
