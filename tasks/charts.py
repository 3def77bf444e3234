"""Charts as inline SVG that take their colours from the page, so that they are right on light and on dark ground.

The same numbers always give the same bytes: no date, no random ids.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Stand-ins that matplotlib understands; `_svg` puts the page's own colours in their place.
INK, LINE, ACCENT, DROP = "#010101", "#020202", "#030303", "#040404"
_PAGE = {INK: "var(--ink)", LINE: "var(--line)", ACCENT: "var(--accent)", DROP: "var(--drop)"}
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f8f", "#b8a900")
"""Okabe and Ito (2008), the yellow darkened so that it shows on white."""

_WIDTH, _FONT, _LETTERS = 3.5, 9.5, 42
"""Inches, points, and letters of a line: phones and a page's columns enlarge a chart a little, so that its text has 12 pixels
or more."""


def histogram(kept: Sequence[float], dropped: Sequence[float], limits: Sequence[float], label: str, alt: str) -> str:
    """Scores of kept and dropped clips in common bins, with a line at each threshold."""
    figure, axes = _axes(1.8)
    good, bad = (np.array([value for value in values if np.isfinite(value)]) for values in (kept, dropped))
    both = np.concatenate([good, bad])
    if both.size:
        ends = np.concatenate([both, np.asarray(limits, np.float64)])  # or equal scores far from a threshold are a hair line
        spread = float(np.ptp(ends)) or 1.0
        bins = np.linspace(ends.min() - 0.02 * spread, ends.max() + 0.02 * spread, 25)
        names = [f"kept {good.size}", f"dropped {bad.size}"]
        axes.hist([good, bad], bins=bins.tolist(), stacked=True, color=[ACCENT, DROP], label=names)
        for limit in limits:
            axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        _legend(figure, names, "outside upper left")
    axes.set_xlabel(textwrap.fill(label, _LETTERS), color=INK)
    axes.set_ylabel("clips", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return _svg(figure, alt)


def beside(series: Mapping[str, Sequence[float]], limit: float, label: str, alt: str) -> str:
    """Outlined histograms over each other in common bins, of at most two groups, with a line at the limit."""
    figure, axes = _axes(2.2)
    values = np.concatenate([np.asarray(one, np.float64) for one in series.values()] + [np.array([limit])])
    spread = float(np.ptp(values)) or 1.0
    bins = np.linspace(values.min() - 0.02 * spread, values.max() + 0.02 * spread, 25)
    for colour, (name, one) in zip((DROP, ACCENT), series.items(), strict=False):
        axes.hist(one, bins=bins.tolist(), histtype="step", linewidth=1.6, color=colour, label=_plain(name))
    axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    _legend(figure, series, "outside upper left")
    axes.set_xlabel(textwrap.fill(label, _LETTERS), color=INK)
    axes.set_ylabel("clips", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return _svg(figure, alt)


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], alt: str, log: bool = False) -> str:
    """Losses as lines of (steps, values); a single one has the page's accent, several have a legend."""
    figure, axes = _axes(1.8 + (_lines(series) if len(series) > 1 else 0))
    for number, (name, (steps, values)) in enumerate(series.items()):
        colour = ACCENT if len(series) == 1 else SERIES[number % len(SERIES)]
        axes.plot(list(steps), list(values), color=colour, linewidth=1.4, label=_plain(name))
    if log and all(min(values, default=0) > 0 for _, values in series.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if len(series) > 1:
        _legend(figure, series, "outside lower left")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    return _svg(figure, alt)


def whiskers(rows: Sequence[tuple[str, float, float, float]], baseline: str, label: str, alt: str) -> str:
    """Means with intervals, one row an arm from top to bottom; a broken line at the baseline's mean."""
    figure, axes = _axes(0.6 + 0.25 * len(rows))
    for place, (name, mean, low, high) in enumerate(rows):
        colour = INK if name == baseline else ACCENT
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="round")
        axes.plot([mean], [place], marker="s" if name == baseline else "o", markersize=5.5, color=colour)
        if name == baseline:
            axes.axvline(mean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [_plain(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(3))  # names of arms leave little room
    axes.set_xlabel(textwrap.fill(label, _LETTERS), color=INK, loc="right")
    return _svg(figure, alt)


def by_share(series: Mapping[str, Sequence[tuple[float, float, float, float]]], label: str, alt: str) -> str:
    """Lines of (share of the training patients, mean, low, high), one an arm, each beside the last so that intervals show."""
    figure, axes = _axes(2 + _lines(series))
    for number, (name, points) in enumerate(series.items()):
        colour = SERIES[number % len(SERIES)]
        shares, means, lows, highs = (np.array(column) for column in zip(*points, strict=True))
        places = 100 * shares + 0.7 * (number - (len(series) - 1) / 2)
        axes.plot(places, means, color=colour, linewidth=1.4, marker="o", markersize=4, label=_plain(name))
        axes.vlines(places, lows, highs, color=colour, linewidth=1.2)
        axes.set_xticks(100 * shares)
    _legend(figure, series, "outside lower left")
    axes.set_xlabel("patients that train, %", color=INK)
    axes.set_ylabel(label, color=INK)
    return _svg(figure, alt)


def smooth(values: Sequence[float], points: int = 200) -> tuple[list[float], list[float]]:
    """Steps and means over equal windows, at most `points` of them: what a noisy loss does on the whole."""
    window = max(1, -(-len(values) // points), len(values) // 60)
    starts = np.arange(0, len(values), window)
    sums = np.add.reduceat(np.asarray(values, np.float64), starts) if len(values) else np.array([])
    sizes = np.diff([*starts, len(values)])
    return (starts + sizes / 2).tolist(), (sums / sizes).tolist()


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=LINE, labelcolor=INK, labelsize=_FONT)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.label.set_fontsize(_FONT)
    axes.yaxis.label.set_fontsize(_FONT)
    return figure, axes


def _legend(figure: Figure, names: Iterable[str], where: Literal["outside upper left", "outside lower left"]) -> None:
    """Of all that has a label, above or below the axes."""
    figure.legend(frameon=False, fontsize=_FONT, labelcolor=INK, loc=where, ncols=_columns(names),
                  handlelength=1.2, columnspacing=1.2, labelspacing=0.3, borderpad=0.2)


def _columns(names: Iterable[str]) -> int:
    return 2 if max(map(len, names), default=0) <= 17 else 1


def _lines(names: Collection[str]) -> float:
    """Inches that a legend of these takes."""
    return 0.19 * math.ceil(len(names) / _columns(names))


def _plain(name: str) -> str:
    """Two dollars in a name would be a formula to matplotlib."""
    return name.replace("$", r"\$")


def _svg(figure: Figure, alt: str) -> str:
    """Inline SVG with the page's colours and fonts, a text for those who do not see it, and ids no other chart has."""
    held = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cinefab"}):
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
    svg = held.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*(<metadata>.*?</metadata>|<!--.*?-->)", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # a hundredth of a point is seen by nobody
    for stand_in, colour in _PAGE.items():
        svg = svg.replace(stand_in, colour)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)  # a bare * would style the whole page
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    mark = hashlib.blake2b((svg + alt).encode(), digest_size=4).hexdigest()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{mark}-", svg)
    escaped = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', re.S)
    return head.sub(lambda found: f'<svg viewBox="{found[1]}" role="img" aria-label="{escaped}">', svg, count=1).strip()
