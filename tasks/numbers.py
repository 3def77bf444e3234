"""Every number of a run by its name: counts through the line, and what control and audit measured of every set.

The files are read as they are, so a measure that a stage begins to write appears here by itself, and with it in `dvc metrics`
and in `cinefab compare`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.account import read_filters, read_sources
from tasks.records import AuditRecord, ConditionRecord, Decision, ProvenanceRecord, accepted
from tasks.tables import read_json, read_table

ESTIMATES = ("advantage", "gain", "excess", "margin", "difference", "value")
"""What `low` and `high` of a JSON object are the interval of: the first of these that it has."""

INSIDE, BAND = "inside", "band"
"""The share of a set that lies where real clips do, and where that is. Without a band, as runs wrote it before there was one,
`low` to `high` is that range and no interval."""

Name = tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """One number of a set.

    Attributes:
        value: None where it is undefined.
        low, high: its 95 % interval; None where it has none.
        direction: which way is nearer to real clips, as "lower is nearer"; "" if the file does not say.
        what: in words.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    direction: str = ""
    what: str = ""


def counts(data: Path, sets: Iterable[str]) -> dict[str, int]:
    """Of one run's folder: sources, prepared clips and patients by split, conditions; of every set what was sampled, what each
    filter dropped and what was kept. Of sets that were not sampled or judged nothing is there.

    Raises:
        ValueError: without prepared clips, or if a set's decisions are not about its clips.
    """
    sources = read_sources(data / "prepared")
    found = {"sources": sources.sources, "sources.used": sources.used, "quarantined": len(sources.quarantined),
             "clips": sources.total}
    found |= {f"clips.{split}": number for split, number in sources.clips.items()}
    found |= {f"patients.{split}": number for split, number in sources.patients.items()}
    if (bank := data / "conditions" / "conditions.parquet").exists():
        found["conditions"] = len(read_table(bank, ConditionRecord))
    for name in sets:
        if (ids := _ids(data, name)) is None:
            continue
        found[f"sampled.{name}"] = len(ids)
        if (judged := data / "decisions" / name / "decisions.parquet").exists():
            decisions = read_table(judged, Decision)
            found |= {f"dropped.{name}.{one.name}": one.dropped for one in read_filters(decisions)}
            found[f"kept.{name}"] = len(accepted(ids, decisions))
    return found


def measures(data: Path, sets: Iterable[str]) -> dict[Name, Measure]:
    """Whatever control and audit measured, by file, set and place in the file: ("control", "sfvd", "label", "advantage").

    An audit of clips that have since been sampled anew is left out.
    """
    found: dict[Name, Measure] = {}
    for name in sets:
        files = sorted((data / "control" / name).glob("*.json"))
        audit = data / "audit" / name / "audit.json"
        for path in [*files, audit] if _is_of_the_set(audit, data) else files:
            found |= dict(_cells(read_json(path), (path.stem, name)))
    return found


def flat(data: Path, sets: Iterable[str], released: int) -> dict[str, float]:
    """What `dvc metrics` shows, numbers alone: counts, and every measure with its interval beside it.

    Args:
        released: how many clips are to be released.
    """
    numbers = {**counts(data, sets), "released": released}
    found: dict[str, float] = {f"counts.{name}": number for name, number in numbers.items()}
    measured = measures(data, sets)
    for name, short in brief(measured).items():
        one = measured[name]
        ends = {short: one.value, f"{short}.low": one.low, f"{short}.high": one.high}
        found |= {key: number for key, number in ends.items() if number is not None}
    return found


def brief(names: Iterable[Name]) -> dict[Name, str]:
    """Dotted names. Of an extractor's only the network, not what is said of it in brackets, unless two would be the same."""
    short = {name: ".".join(part.partition(" (")[0] for part in name) for name in names}
    taken = Counter(short.values())
    return {name: one if taken[one] == 1 else ".".join(name) for name, one in short.items()}


def _cells(value: Any, name: Name) -> Iterator[tuple[Name, Measure]]:
    if not isinstance(value, dict):
        return
    numbers = {key: value[key] for key in (*ESTIMATES, INSIDE) if key in value and _is_number(value[key])}
    for place, (key, number) in enumerate(numbers.items()):
        own = place == 0 and (INSIDE not in value or BAND in value)
        low, high = (value.get(end) if own else None for end in ("low", "high"))
        yield (*name, key), Measure(number, low, high, value.get("direction", ""), value.get("what", ""))
    for key, part in value.items():
        yield from _cells(part, name if key == "metrics" else (*name, key))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_of_the_set(audit: Path, data: Path) -> bool:
    table = audit.with_suffix(".parquet")
    if not (audit.exists() and table.exists()):
        return False
    return {row.clip_id for row in read_table(table, AuditRecord)} == set(_ids(data, audit.parent.name) or ())


def _ids(data: Path, name: str) -> list[str] | None:
    """Of a set's clips; None if it was not sampled."""
    path = data / "clips" / name / "provenance.parquet"
    return [record.clip_id for record in read_table(path, ProvenanceRecord)] if path.exists() else None
