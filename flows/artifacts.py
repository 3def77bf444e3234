"""What people look at in the Prefect UI: counts as a table, clips as a contact sheet, the report as a link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from tasks.pictures import store_sheet


def counts(key: str, facts: dict[str, Any]) -> None:
    """A two-column table of the plain values in `facts`, nested ones by dotted name."""
    rows = [{"what": name, "value": value} for name, value in _flatten(facts)]
    create_table_artifact(key=key.replace("_", "-"), table=rows)


def sheet(key: str, store: Path) -> None:
    """A contact sheet of the first clips of a store, inside the artifact itself: no file server is needed."""
    create_image_artifact(key=key.replace("_", "-"), image_url=store_sheet(store))


def link(key: str, path: Path) -> None:
    create_markdown_artifact(key=key, markdown=f"[{path.name}]({path.resolve().as_uri()})")


def _flatten(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            rows.append((f"{prefix}{name}", value))
    return rows
