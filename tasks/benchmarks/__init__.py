"""Downstream tasks that judge a synthetic set, one file each. A file offers `evaluate`, as `Benchmark` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.params import BenchmarkParams
from tasks.records import EvaluationRecord


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
        rows: one per test clip and label, in the order of the prepared store; none if the chain kept no clip for the arm.
        losses: training loss of every step.
        facts: what was trained on, as plain JSON values.
    """

    rows: list[EvaluationRecord]
    losses: list[float]
    facts: dict[str, int]


class Benchmark(Protocol):
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
