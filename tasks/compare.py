"""Two runs beside each other: what was asked otherwise, what came of it, and whether anything got better or worse.

A run is the folder of a line: `data`, one of `data/repeats`, another clone's. Only what was written down is read: no network is
run and no pixel decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.compare_benchmarks import SAME, SIGNIFICANT, UNTESTED, Benchmarks, Changed, compare_benchmarks
from tasks.comparisons import WORDS, p_words
from tasks.metrics.segmentation import DISTANCES
from tasks.numbers import Measure, Name, brief, counts, measures
from tasks.profiles import Change, changes
from tasks.records import ClipRecord
from tasks.release import ReleasedClip
from tasks.tables import read_json, read_table

READ = ("prepared/manifest.parquet", "prepared/quarantine.parquet", "prepared/summary.json", "conditions/conditions.parquet",
        "critics/*/checkpoint.json", "clips/*/provenance.parquet", "decisions/*/decisions.parquet", "control/*/*.json",
        "audit/*/audit.json", "audit/*/audit.parquet", "benchmark/*.json", "benchmark/runs.parquet", "release/release.json",
        "release/manifest.parquet", "reports/params.yaml")
"""All that is read of a run's folder."""

NEEDED = ("prepared/manifest.parquet", "prepared/summary.json")
NAMED = 3
"""Parameters that the sentence names, at most."""


@dataclass(frozen=True)
class Pair:
    """One number of a set in both runs; None in a run that has none.

    Attributes:
        name: in full; `short` is dotted and without what an extractor's name has in brackets.
        apart: whether both have an interval, and the two do not overlap. No test, and stricter than one.
    """

    name: Name
    short: str
    first: Measure | None
    second: Measure | None
    apart: bool

    @property
    def either(self) -> Measure:
        return self.second or self.first or Measure(None)

    @property
    def difference(self) -> float | None:
        values = [one.value if one else None for one in (self.first, self.second)]
        return None if values[0] is None or values[1] is None else values[1] - values[0]


@dataclass(frozen=True)
class Released:
    """Clip ids of two releases; `redrawn` are those of `common` that have other pixels."""

    added: list[str]
    dropped: list[str]
    common: list[str]
    redrawn: list[str]


@dataclass(frozen=True)
class Comparison:
    """What `cinefab compare` shows. `params`, `counts` and `measures` hold what differs, `equal` how many measures do not;
    `counts` are (name, first, second). `params` and `released` are None if a run has none."""

    names: tuple[str, str]
    sentence: str
    limits: list[str]
    params: list[Change] | None
    counts: list[tuple[str, int | None, int | None]]
    benchmarks: Benchmarks
    measures: list[Pair]
    equal: int
    released: Released | None


@dataclass(frozen=True)
class _Run:
    params: dict[str, Any] | None
    counts: dict[str, int]
    measures: dict[Name, Measure]
    training: set[str]
    critics: dict[str, str]
    released: dict[str, str] | None


def compare(first: Path, second: Path, names: tuple[str, str] | None = None) -> Comparison:
    """Compare two runs' folders, the second as the newer one: differences are second minus first.

    Args:
        names: what the two are called; the folders, if left out.

    Raises:
        ValueError: naming the folder that is no run, and what is missing from it.
    """
    names = names or (str(first), str(second))
    a, b = (_read(folder, name) for folder, name in zip((first, second), names, strict=True))
    changed = None if a.params is None or b.params is None else list(changes(a.params, b.params, ""))
    numbers = [(name, a.counts.get(name), b.counts.get(name)) for name in dict.fromkeys([*a.counts, *b.counts])]
    benchmarks = compare_benchmarks(first / "benchmark", second / "benchmark", _redefined(changed))
    pairs = _pairs(a.measures, b.measures)
    different = [pair for pair in pairs if _numbers(pair.first) != _numbers(pair.second)]
    released = None if a.released is None or b.released is None else _released(a.released, b.released)
    moved = [one for one in numbers if one[1] != one[2]]
    return Comparison(names, _sentence(changed, moved, benchmarks, different, released),
                      _limits(a, b, benchmarks, changed, bool(pairs)), changed, moved, benchmarks, different,
                      len(pairs) - len(different), released)


def _read(folder: Path, name: str) -> _Run:
    if missing := [file for file in NEEDED if not (folder / file).exists()]:
        raise ValueError(f"{name}: no run, it has no {' and no '.join(missing)}; give the data folder of a line that was run, "
                         "e.g. data or data/repeats/train_0.5_seed_1, or a git revision of this repository")
    asked, listed = folder / "reports" / "params.yaml", folder / "release" / "manifest.parquet"
    params = yaml.safe_load(asked.read_text()) if asked.exists() else None
    # a set that is no longer asked for may still lie there
    sets = list(params["samples"]) if params else sorted({path.name for path in folder.glob("clips/*")})
    numbers = counts(folder, sets)
    released = None
    if listed.exists() and (folder / "release" / "release.json").exists():
        released = {row.clip_id: row.digest for row in read_table(listed, ReleasedClip)}
        numbers["released"] = len(released)
    training = {row.clip_id for row in read_table(folder / "prepared" / "manifest.parquet", ClipRecord) if row.split == "train"}
    critics = {path.parent.name: read_json(path)["digest"] for path in sorted(folder.glob("critics/*/checkpoint.json"))}
    return _Run(params, numbers, measures(folder, sets), training, critics, released)


def _pairs(first: dict[Name, Measure], second: dict[Name, Measure]) -> list[Pair]:
    short = brief(dict.fromkeys([*first, *second]))
    return [Pair(name, word, first.get(name), second.get(name), _apart(first.get(name), second.get(name)))
            for name, word in short.items()]


def _numbers(one: Measure | None) -> tuple[float | None, ...] | None:
    return None if one is None else (one.value, one.low, one.high)


def _apart(first: Measure | None, second: Measure | None) -> bool:
    if first is None or second is None or None in (first.low, first.high, second.low, second.high):
        return False
    return bool(first.high < second.low or second.high < first.low)  # type: ignore[operator]


def _released(first: dict[str, str], second: dict[str, str]) -> Released:
    common = [clip for clip in first if clip in second]
    return Released([clip for clip in second if clip not in first], [clip for clip in first if clip not in second], common,
                    [clip for clip in common if first[clip] != second[clip]])


def _redefined(changed: Sequence[Change] | None) -> set[str]:
    """The metrics that parameters of the benchmark define, if they differ."""
    keys = {key for key, _, _ in changed or ()}
    return set(DISTANCES) if keys & {"benchmark.distance_on", "benchmark.empty_distance"} else set()


def _limits(a: _Run, b: _Run, benchmarks: Benchmarks, changed: Sequence[Change] | None, measured: bool) -> list[str]:
    """What cannot be compared, or not as it stands, a line each."""
    sides = {"A": a, "B": b}
    said = [f"the parameters of {name} are not known: it has no reports/params.yaml, which `cinefab report` writes"
            for name, run in sides.items() if run.params is None]
    said += benchmarks.limits
    if redefined := _redefined(changed):
        said.append(f"the benchmarks define {', '.join(sorted(redefined))} otherwise, so they are not tested")
    if measured and a.training != b.training:
        said.append("the sets are measured against other training clips")
    if measured and (others := [name for name in a.critics if name in b.critics and a.critics[name] != b.critics[name]]):
        said.append(f"trained anew, and so other eyes: what critics measure ({', '.join(others)})")
    return said + [f"{name} has no release" for name, run in sides.items() if run.released is None]


def _sentence(changed: Sequence[Change] | None, moved: Sequence[Any], benchmarks: Benchmarks, different: Sequence[Pair],
              released: Released | None) -> str:
    keys = [key for key, _, _ in changed or ()]
    results = {(row.network, row.arm) for row in benchmarks.rows if row.verdict != SAME and row.first != row.second}
    everything = {(row.network, row.arm) for row in benchmarks.rows}
    said = [_many(len(keys), "parameter") + f" ({_some(keys)})"] if keys else []
    said += [_many(len(moved), "count")] if moved else []
    said += [f"{len(results)} of {_many(len(everything), 'benchmark result')}"] if results else []
    apart = sum(pair.apart for pair in different)
    said += [_many(len(different), "number") + f" of sets ({apart} with intervals apart)"] if different else []
    if released and (released.added or released.dropped or released.redrawn):
        said.append(f"released clips ({len(released.added)} added, {len(released.dropped)} dropped, "
                    f"{len(released.redrawn)} with other pixels)")
    if not said:
        same = (["parameters"] if changed is not None else []) + ["counts"] + (["benchmark"] if everything else [])
        same += ["numbers of sets", *(["released clips"] if released else [])]
        return f"Nothing changed: {', '.join(same[:-1])} and {same[-1]} are the same."
    return f"Changed: {', '.join(said)}; {_judged(benchmarks)}."


def _judged(benchmarks: Benchmarks) -> str:
    """Whether the primary metric got better or worse."""
    rows = [row for row in benchmarks.rows if row.metric == benchmarks.primary]
    tested = [row for row in rows if row.difference]
    if not rows or all(row.first is None or row.second is None for row in rows):
        return "there are no two benchmarks to say whether that is better or worse"
    if not tested:
        untested = any(row.verdict == UNTESTED for row in rows)
        return "whether that is better or worse is not tested" if untested else "no result of the benchmark changed"
    word = WORDS.get(str(benchmarks.primary), str(benchmarks.primary))
    many = f"{_many(len(tested), 'comparison')}, {_many(benchmarks.patients, 'held-out patient')}"
    found = [(way, [row for row in tested if row.verdict == verdict])
             for way, verdict in zip(("better", "worse"), SIGNIFICANT, strict=True)]
    ways = [f"significantly {way} {_most(rows)}" for way, rows in found if rows]
    return f"{word} got {' and '.join(ways)} ({many})" if ways else f"no significant change in {word} ({many})"


def _most(rows: Sequence[Changed]) -> str:
    """Where the difference is largest, and in how many rows there is one."""
    row, one = max(((row, row.difference) for row in rows if row.difference), key=lambda both: abs(both[1]["value"]))
    return (f"{f'in {len(rows)}, most ' if len(rows) > 1 else ''}for {row.arm} on {row.network} ({one['value']:+.3f}, 95 % CI "
            f"{one['low']:+.3f} to {one['high']:+.3f}, Holm-corrected p {p_words(one['p_holm'])})")


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
