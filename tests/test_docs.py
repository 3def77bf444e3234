"""Every number in the documents comes from the committed files.

`python tests/test_docs.py > docs/results/README.md` writes the page of results; the README repeats parts of it.
"""

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


def results_page() -> str:
    """Every committed run: its sentence, its table and how many patients, clips and seeds are behind them."""
    intervals = ("Intervals are 95 %: of means over held-out patients, of differences over patients and trainings; "
                 "p is Holm-corrected.")
    parts = ["# What the committed runs wrote\n",
             intervals + " `python tests/test_docs.py` makes this page from the runs' own files.\n"]
    for study in STUDIES:
        counts = json.loads((study / "metrics.json").read_text())["counts"]
        parts += [f"## {study.name}\n", sentence(study) + "\n", results_table(study) + "\n",
                  f"{counts['patients']} test patients, {counts['clips']} test clips, {counts['seeds']} seeds. "
                  f"[The run's report]({study.name}/report.html), [its parameters]({study.name}/params.yaml).\n"]
    return "\n".join(parts)


def sentence(study: Path) -> str:
    words: str = json.loads((study / "verdict.json").read_text())["sentence"]
    return words


def test_the_page_of_results_is_what_the_runs_wrote() -> None:
    assert (ROOT / "docs" / "results" / "README.md").read_text() == results_page()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_readme_repeats_every_verdict(study: Path) -> None:
    assert sentence(study) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_study_on_real_data() -> None:
    assert results_table(ROOT / "docs" / "results" / "hippocampus_study") in (ROOT / "README.md").read_text()


def test_every_local_link_and_picture_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "results" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), target


if __name__ == "__main__":
    import sys

    sys.stdout.write(results_page())
