"""docs/results/loss.json, a row a trial, and docs/results/loss.md, which this makes of it."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TEXT = """# Nothing is lost: kills, failing disks, damage, rivals

`make test-long` writes this page (`tests/trust/test_loss.py`); the same tests in small are in the default suite. The line is a
whole one, prepare to release, of trainings of a few steps and three shards a set. Every trial ends with what was disturbed run
to its end: its files are then, byte for byte, those of a line that nobody disturbed, and `cinefab verify` names nothing. Before
that, after every kill and fault, it names nothing but work that is left. A trial that ends otherwise fails and writes no row.

{date}; {machine}; other programs ran beside.

| trial | runs | faults | outcome | minutes | peak memory |
|---|---|---|---|---|---|
{rows}

Runs are processes that ran stages. Memory is the largest process's, torch's libraries included.
"""


def record(trial: str, row: dict[str, Any]) -> None:
    """Put a trial's numbers into the table, in place of those it had."""
    path = RESULTS / "loss.json"
    known = json.loads(path.read_text()) if path.exists() else {"trials": {}}
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}"
    known |= {"date": date.today().isoformat(), "machine": f"{machine}, Python {platform.python_version()}"}
    known["trials"][trial] = row
    path.write_text(json.dumps(known, indent=1) + "\n")
    (RESULTS / "loss.md").write_text(page(known))


def page(found: dict[str, Any]) -> str:
    rows = "\n".join(f"| {trial} | {row['runs']:,} | {row['faults']:,} | {outcome(row)} | {row['seconds'] / 60:.1f} | "
                     f"{row['peak_mb']:.0f} MB |" for trial, row in found["trials"].items())
    return TEXT.format(date=found["date"], machine=found["machine"], rows=rows)


def outcome(row: dict[str, Any]) -> str:
    """What became of a trial, in words."""
    said = []
    if "repeated" in row:
        again = ", ".join(f"{number} {what}" for what, number in sorted(row["repeated"].items()) if what != "survey")
        said.append(f"{row['lines']} lines to their end; 0 clips lost, 0 twice")
        said.append(f"at most {row['most repeated units a kill']} unit of work repeated a kill (in all: "
                    f"{again or 'none'}), and {row['repeated'].get('survey', 0)} times prepare's first pass over its sources, "
                    "which keeps nothing")
    if "of" in row:
        said.append(f"every n from 1 to {row['of']}" if row["faults"] == row["of"] else f"{row['faults']} of {row['of']} n")
    if "ends" in row:
        said.append(", ".join(f"{number} {what}" for what, number in sorted(row["ends"].items())))
    if "found" in row:
        said.append("all named: " + ", ".join(f"{number} in {what}" for what, number in row["found"].items()))
        said.append(f"{row['runs']} mended by their stage, which wrote no other shard")
    if "changed back" in row:
        said.append(f"{row['changed back']} changed back; no stale file kept")
    return "; ".join(said)
