"""docs/scale.md: how far a line goes and what it costs, from rates that runs measured.

    python benchmarks/scale.py > docs/scale.md
    python benchmarks/scale.py take data > docs/results/phantom_demo/timing.json     after a run: its own records, in one file

Numbers beyond those measured are multiples of a measured rate and are named so.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)


def take(data: Path) -> dict[str, dict[str, Any]]:
    """What the stages of a line recorded, by stage and set."""
    return {stage: {path.stem: json.loads(path.read_text()) for path in sorted((data / "timing" / stage).glob("*.json"))}
            for stage in ("sample", "curate")}


def page(results: Path) -> str:
    """The whole of docs/scale.md."""
    runs = {path.parent.name: json.loads(path.read_text()) for path in sorted(results.glob("*/timing.json"))}
    kept = json.loads((results / "bookkeeping.json").read_text())
    sampled = [json.loads(line) for line in (results.parent / "speed" / "sampling.jsonl").read_text().splitlines()]
    text = Path(__file__).with_suffix(".md").read_text()
    parts = {"RATES": "\n".join(rates(runs)), "COSTS": "\n\n".join(costs(runs)), "GPU": "\n".join(on_gpus(sampled)),
             "BOOKKEEPING": "\n".join(bookkeeping(kept)), "MEMORY": "\n".join(memory(runs))}
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


def rates(runs: dict[str, Any]) -> Iterator[str]:
    """What was measured, a row a set."""
    yield from head("run", "set", "clip", "clips", "sampling, s a clip", "of CPU", "overhead", "filters, s a clip",
                    "stored, kB a clip", "on")
    for run, name, sampled, curated in sets(runs):
        threads = f"{sampled['threads']} thread{'s' * (sampled['threads'] > 1)}"
        machine = f"{sampled['device'].replace('cpu', 'CPU')}, {threads}, load {sampled['load']} on {sampled['cores']} cores"
        yield row(run, name, size(sampled["clip"]), sampled["clips"], f"{sampled['model_seconds'] / sampled['clips']:.2f}",
                  f"{sampling(sampled):.2f}", f"{sampled['overhead']:.1%}", f"{filtering(curated):.3f}",
                  f"{sampled['bytes_a_clip'] / 1e3:.1f}", machine)


def costs(runs: dict[str, Any]) -> Iterator[str]:
    """One table a size of clips, by the largest set of that size."""
    for run, name, sampled, curated in largest_sets(runs):
        lines = [f"**{run}**, set {name}: {size(sampled['clip'])}, {sampled['shard_clips']} clips to a shard.", "",
                 *head("clips", "shards", "stored", "sampling, one core", "filters")]
        for clips in SIZES:
            lines.append(row(power(clips), f"{math.ceil(clips / sampled['shard_clips']):,}",
                             amount(clips * sampled["bytes_a_clip"]), hours(clips * sampling(sampled)),
                             hours(clips * filtering(curated))))
        yield "\n".join(lines)


def on_gpus(measured: list[dict[str, Any]]) -> Iterator[str]:
    """What `benchmarks/sampling.py` measured on GPUs, a row a way, and its multiples: hours of one GPU."""
    yield from head("GPU", "profile", "clips", "networks", "s a clip", "peak memory", *map(power, SIZES))
    for one in measured:
        clips = f"{one['batch_clips']} of {' x '.join(map(str, one['clip']))}"
        yield row(one["device"], f"`{one['profile']}`", clips, one["way"],
                  f"{one['seconds_a_clip']:.1f}", f"{one['peak_gib']:.0f} GiB",
                  *(hours(number * one["seconds_a_clip"]) for number in SIZES))


def bookkeeping(kept: list[dict[str, Any]]) -> Iterator[str]:
    """Measured as a set grows, then multiples of the largest measured."""
    yield from head("clips", "shards", "planning", "storing", "sealing", "together, ms a clip", "memory", "")
    last, fewer = kept[-1], kept[-2]
    growth = (last["peak_mb"] - fewer["peak_mb"]) / (last["clips"] - fewer["clips"])
    more = [{name: value * clips / last["clips"] for name, value in last.items()}
            | {"peak_mb": last["peak_mb"] + growth * (clips - last["clips"]), "times": clips / last["clips"],
               "shards": math.ceil(clips / round(last["clips"] / last["shards"]))} for clips in SIZES if clips > last["clips"]]
    for one in (*kept, *more):
        parts = [one[f"{name}_seconds"] for name in ("plan", "store", "finish")]
        how = f"{one['times']:g} times {power(last['clips'])}" if "times" in one else "measured"
        yield row(power(one["clips"]), f"{one['shards']:,}", *map(seconds, parts),
                  f"{1e3 * sum(parts) / one['clips']:.2f}", f"{one['peak_mb'] / 1e3:.2f} GB", how)


def memory(runs: dict[str, Any]) -> Iterator[str]:
    """What the process that decides must hold at once."""
    yield from head("run", "the filter with most evidence, kB a clip", "of 1e5 clips", "of 1e6", "of 1e7")
    for run, _, _, curated in largest_sets(runs):
        held = curated["evidence_bytes_a_clip"]
        yield row(run, f"{held / 1e3:.1f}", *(amount(clips * held) for clips in (1e5, 1e6, 1e7)))


def sets(runs: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(run, set, what sampling recorded, what curating did)."""
    for run, stages in runs.items():
        for name, sampled in stages["sample"].items():
            if name in stages["curate"]:
                yield run, name, sampled, stages["curate"][name]


def largest_sets(runs: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """The set with most clips of each size of clips."""
    largest: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {}
    for one in sets(runs):
        known = largest.setdefault(size(one[2]["clip"]), one)
        if one[2]["clips"] > known[2]["clips"]:
            largest[size(one[2]["clip"])] = one
    yield from largest.values()


def sampling(sampled: dict[str, Any]) -> float:
    """Seconds of CPU a clip inside the generator."""
    return float(sampled["cpu_seconds"] / sampled["clips"])


def filtering(curated: dict[str, Any]) -> float:
    """Seconds a clip of the whole stage."""
    return float(curated["wall_seconds"] * curated["workers"] / curated["clips"])


def head(*names: str) -> Iterator[str]:
    yield row(*names)
    yield "|" + "---|" * len(names)


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def size(clip: dict[str, int]) -> str:
    return f"{clip['frames']} x {clip['height']} x {clip['width']}" + (" x 3" if clip["channels"] == 3 else "")


def power(clips: float) -> str:
    return f"1e{round(math.log10(clips))}" if clips == 10 ** round(math.log10(clips)) else f"{clips:,.0f}"


def amount(count: float) -> str:
    for unit, many in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= many:
            return f"{count / many:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def hours(many: float) -> str:
    return f"{float(f'{many / 3600:.3g}'):,} h".replace(".0 h", " h")


def seconds(many: float) -> str:
    return f"{many:.3g} s" if many < 600 else f"{many / 60:.3g} min" if many < 7200 else f"{many / 3600:.3g} h"


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        sys.stdout.write(json.dumps(take(Path(sys.argv[2])), indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write(page(ROOT / "docs" / "results"))
