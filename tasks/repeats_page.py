"""One self-contained page about repeated random splits: curves over the training share, and every difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasks.account import NAMES, arm_in_words
from tasks.charts import by_share
from tasks.pages import pages
from tasks.params import Params
from tasks.tables import atomic_write

SHOWN = ("accuracy", "f1", "dice", "hausdorff")
"""Metrics with a chart and a table, as far as the benchmark has them."""


def repeats_page(params: Params, found: dict[str, Any], out: Path) -> Path:
    """Write `repeats.html` of what `tasks.repeats.pool` returned; the same numbers give the same bytes."""
    first = next(iter(found.values()))
    networks = list(first["means"])
    metrics = [name for name in SHOWN if name in first["means"][networks[0]][params.benchmark.baseline]]
    page = pages().get_template("repeats.html").render(
        params=params, found=found, networks=networks, metrics=metrics, names=NAMES,
        compared={(share, row["network"], row["arm"], row["metric"]): row for share, one in found.items()
                  for row in one["comparisons"]},
        arms={name: arm_in_words(params, name) for name in params.benchmark.arms},
        charts={(network, metric): _chart(params, found, network, metric) for network in networks for metric in metrics},
    )
    atomic_write(out / "repeats.html", page.encode())
    return out / "repeats.html"


def _chart(params: Params, found: dict[str, Any], network: str, metric: str) -> Markup:
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    for share, one in sorted(found.items(), key=lambda item: float(item[0])):
        for arm in params.benchmark.arms:
            if cell := one["means"].get(network, {}).get(arm, {}).get(metric):
                series.setdefault(arm, []).append((float(share), cell["mean"], cell["low"], cell["high"]))
    alt = f"mean {NAMES[metric]} and 95 % interval of each arm by training share, {network}"
    return Markup(by_share(series, NAMES[metric], alt))
