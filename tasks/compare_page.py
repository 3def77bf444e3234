"""A comparison of two runs as text for a terminal, and as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.account import NAMES, TESTS, interval, p_value
from tasks.compare import Comparison
from tasks.compare_benchmarks import SIGNIFICANT, Changed
from tasks.numbers import Measure
from tasks.pages import pages
from tasks.tables import atomic_write

LISTED = 200
"""Clip ids of a kind on the page, at most."""


def text(found: Comparison) -> str:
    """Aligned columns, nothing wider than its content. Of the benchmark the primary metric, and of the others what is
    significant."""
    first, second = found.names
    parts = [f"A  {first}\nB  {second}\n\n{found.sentence}"]
    if found.limits:
        parts.append("\n".join(f"Note: {one}." for one in found.limits))
    if found.params:
        parts.append("Parameters\n" + "\n".join(f"  {key}: {old} -> {new}" for key, old, new in found.params))
    if found.counts:
        rows = [[name, _count(a), _count(b), _step(a, b)] for name, a, b in found.counts]
        parts.append("Counts\n" + _table([["", "A", "B", "B - A"], *rows]))
    shown = [row for row in found.benchmarks.rows if row.metric == found.benchmarks.primary or row.verdict in SIGNIFICANT]
    if shown:
        head = ["network", "arm", "", "A [95 % CI]", "B [95 % CI]", "B - A [95 % CI]", "Holm p", "verdict"]
        rows = [[row.network, row.arm, NAMES[row.metric], *changed(row), row.verdict] for row in shown]
        parts.append("Benchmark\n" + _table([head, *rows], left=3))
    if found.measures:
        head = ["", "A [95 % CI]", "B [95 % CI]", "B - A", ""]
        rows = [[pair.short, measure(pair.first), measure(pair.second), step(pair.difference),
                 "intervals apart" if pair.apart else ""] for pair in found.measures]
        parts.append("Numbers of sets" + (f", but for {found.equal} that are the same" if found.equal else "") + "\n"
                     + _table([head, *rows]))
    if found.released:
        parts.append(f"Released clips\n  {released(found)}")
    return "\n\n".join(parts)


def page(found: Comparison, out: Path) -> Path:
    """Write one self-contained page; the same comparison gives the same bytes."""
    environment = pages()
    environment.filters |= {"measure": measure, "step": step, "count": _count, "counted": _step, "changed": changed}
    made = environment.get_template("compare.html").render(
        found=found, names=NAMES, released=released(found), listed=LISTED, significant=SIGNIFICANT,
        test=TESTS.get(found.benchmarks.primary or "", ""),
        metrics=list(dict.fromkeys(row.metric for row in found.benchmarks.rows)))
    atomic_write(out, made.encode())
    return out


def measure(one: Measure | None) -> str:
    """"0.0123 [0.0101, 0.0144]"; "n/a" where nothing is defined."""
    if one is None or one.value is None:
        return "n/a"
    ends = "" if one.low is None or one.high is None else f" [{one.low:.4g}, {one.high:.4g}]"
    return f"{one.value:.4g}{ends}"


def step(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def changed(row: Changed) -> list[str]:
    """A, B, their difference and its p, as cells."""
    difference = interval(row.difference, 3, "+", "value") if row.difference else ""
    p = p_value(row.difference["p_holm"]) if row.difference else ""
    return [interval(row.first), interval(row.second), difference, p]


def released(found: Comparison) -> str:
    """In words."""
    if (clips := found.released) is None:
        return "not in both runs"
    redrawn = f", {len(clips.redrawn)} of them with other pixels" if clips.redrawn else ""
    return f"{len(clips.added)} added, {len(clips.dropped)} dropped, {len(clips.common)} in both{redrawn}"


def _count(number: int | None) -> str:
    return "n/a" if number is None else str(number)


def _step(first: int | None, second: int | None) -> str:
    return "" if first is None or second is None else f"{second - first:+d}"


def _table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns two spaces apart, indented; the first `left` and the last are flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1

    def cell(value: str, place: int) -> str:
        return value.ljust(widths[place]) if place < left or place == last else value.rjust(widths[place])

    return "\n".join("  " + "  ".join(cell(value, place) for place, value in enumerate(row)).rstrip() for row in rows)
