"""What a released version holds, in counts and metrics: plain text, the message of its tag."""

from __future__ import annotations

from pathlib import Path

from tasks.account import NAMES, BenchmarkAccount, interval, read_benchmark
from tasks.release import ReleasedClip
from tasks.tables import read_json, read_table


def changelog(release: Path, benchmark: Path, older: tuple[str, Path] | None = None) -> str:
    """The version in `release`, and which of its clips an older one has.

    Args:
        older: name and `manifest.parquet` of the version before.
    """
    facts = read_json(release / "release.json")
    counts, audit = facts["counts"], facts["audit"]
    clips = _clips(release / "manifest.parquet")
    lines = [f"{facts['name']} {facts['version']}", "",
             f"{counts['clips']} clips released of {counts['sampled']} sampled: {counts['dropped'] - audit['withheld']} "
             f"dropped by the filters, {audit['withheld']} withheld as near copies; {counts['conditions']} conditions of "
             f"{counts['patients']} patients"]
    if older:
        before = _clips(older[1])
        lines.append(f"against {older[0]}: {len(clips - before)} clips added, {len(before - clips)} dropped, "
                     f"{len(clips & before)} in both")
    lines += [f"made by {name}, checkpoint {digest}" for name, digest in sorted(facts["checkpoints"].items())]
    lines.append(f"near copies of training clips among {audit['clips']} accepted: {audit['copies']}, "
                 f"{_percent(audit['value'])} [95 % CI {_percent(audit['low'])} to {_percent(audit['high'])}]"
                 + ("" if audit["withheld"] == audit["copies"] else "; released all the same, as audit.refuse: false asked"))
    outcome = read_benchmark(benchmark)
    return "\n".join([*lines, *(_metrics(outcome) if outcome else [])]) + "\n"


def _clips(manifest: Path) -> set[tuple[str, str]]:
    """Names and pixels: the same name under other code may be other pixels."""
    return {(clip.clip_id, clip.digest) for clip in read_table(manifest, ReleasedClip)}


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _metrics(outcome: BenchmarkAccount) -> list[str]:
    word, patients = NAMES[outcome.primary], outcome.counts["patients"]
    lines = ["", outcome.sentence, "",
             f"{word} by network and training data, mean [95 % CI over {patients} held-out patients]:"]
    for network, arms in outcome.metrics.items():
        lines += [f"  {network} {arm}: {interval(cells[outcome.primary])}" for arm, cells in arms.items()]
    return lines
