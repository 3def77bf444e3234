"""Downstream tasks that judge a synthetic set, one file each. A file offers what `Benchmark` describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.params import BenchmarkParams


@dataclass(frozen=True)
class Run:
    """One cell of the benchmark: an arm (what is trained on), a network and a seed, by their names in params.yaml."""

    arm: str
    network: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What one run found.

    Attributes:
        rows: `ROW`s, one per test clip (and label), in the order of the prepared store; none if the chain kept no clip for
            the arm.
        losses: training loss of every step.
        facts: what was trained on, as plain JSON values.
    """

    rows: list[Any]
    losses: list[float]
    facts: dict[str, int]


@dataclass(frozen=True)
class Conclusion:
    """What all runs together say; each is a JSON file.

    Attributes:
        metrics: {network: {arm: {metric: {mean, low, high, seed_sd, patients}}}} and "counts".
        comparisons: each arm against the baseline, by network and pooled.
        verdict: one plain sentence and what it rests on.
    """

    metrics: dict[str, Any]
    comparisons: list[dict[str, Any]]
    verdict: dict[str, Any]


class Benchmark(Protocol):
    ROW: type
    """The dataclass of a row."""

    def evaluate(self, run: Run, benchmark: BenchmarkParams, prepared: Path, synthetic: Path | None,
                 decisions: Path | None) -> Outcome:
        """Train on what the arm says, judge on the test split.

        Args:
            prepared: the prepared data set's folder.
            synthetic: folder of the arm's synthetic set, None if it has none.
            decisions: folder of that set's decisions, None if the arm takes every clip.

        Raises:
            ValueError: if a patient of the test split is among those trained on or conditioned on.
        """
        ...

    def conclude(self, rows: Sequence[Any], benchmark: BenchmarkParams) -> Conclusion:
        """Put the rows of all runs together."""
        ...

    def headline(self, rows: Sequence[Any]) -> dict[str, float | None]:
        """The one number of a run, by its name; None without rows."""
        ...
