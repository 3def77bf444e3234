"""Where everything lies under `data/`. dvc.yaml names the same folders; a test holds the two together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders of one factory, each written by one stage and read by later ones only."""

    root: Path = Path("data")

    def __post_init__(self) -> None:
        if re.match(r"\w{2,}:/", str(self.root)):
            raise ValueError(f"--data: {self.root} is no folder, and a line works on a disk; object storage is for raw data "
                             "(dataset.location), shards on their way (engine.exchange) and DVC's remote")

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @property
    def conditions(self) -> Path:
        return self.root / "conditions"

    def checkpoint(self, generator: str) -> Path:
        return self.root / "checkpoints" / generator

    @property
    def critics(self) -> Path:
        return self.root / "critics"

    @property
    def clips(self) -> Path:
        return self.root / "clips"

    @property
    def decisions(self) -> Path:
        return self.root / "decisions"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def features(self) -> Path:
        """What frozen networks saw, by content: no stage's output, and safe to delete."""
        return self.root / "features"

    @property
    def timing(self) -> Path:
        """What stages took, as the last run that did something says: no stage's output, and safe to delete."""
        return self.root / "timing"

    @property
    def benchmark(self) -> Path:
        return self.root / "benchmark"

    @property
    def release(self) -> Path:
        return self.root / "release"

    @property
    def releases(self) -> Path:
        """Versions that were pulled: no stage's output."""
        return self.root / "releases"

    @property
    def exports(self) -> Path:
        """Releases in other formats: no stage's output."""
        return self.root / "exports"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def repeats(self) -> Path:
        return self.root / "repeats"
