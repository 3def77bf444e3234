"""Every number in the README's results comes from the committed files; run this file to print the table it wants."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path for path in (ROOT / "docs" / "results").glob("*") if path.is_dir())


def results_table(study: Path) -> str:
    """Dice and Hausdorff distance of every arm, and its Dice difference to the baseline, per network."""
    metrics = json.loads((study / "metrics.json").read_text())
    comparisons = json.loads((study / "comparisons.json").read_text())
    networks = [name for name in metrics if name != "counts"]
    lines = [
        "| network | training data | Dice [95 % CI] | Hausdorff, px | Dice against the arm to beat | Holm p |",
        "|---|---|---|---|---|---|",
    ]
    for network in networks:
        for arm, cells in metrics[network].items():
            dice, distance = cells["dice"], cells["hausdorff"]
            tested = next(
                (one for one in comparisons if (one["network"], one["arm"], one["metric"]) == (network, arm, "dice")), None
            )
            against = (
                f"{tested['difference']:+.3f} [{tested['low']:+.3f}, {tested['high']:+.3f}]" if tested else "the arm to beat"
            )
            p = f"{tested['p_holm']:.2g}" if tested and tested["p_holm"] is not None else ""
            lines.append(
                f"| {network} | {arm.replace('_', ' ')} | {dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}] "
                f"| {distance['mean']:.1f} | {against} | {p} |"
            )
    return "\n".join(lines)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_readme_shows_what_the_runs_wrote(study: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert results_table(study) in readme
    assert json.loads((study / "verdict.json").read_text())["sentence"] in readme


def test_every_local_link_and_picture_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target


if __name__ == "__main__":
    import sys

    for folder in STUDIES:
        sys.stdout.write(f"{json.loads((folder / 'verdict.json').read_text())['sentence']}\n\n{results_table(folder)}\n\n")
