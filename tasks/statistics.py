"""Means with intervals and tests between arms. The patient is the unit: clips and seeds of one patient are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
from scipy.stats import wilcoxon

Values = npt.NDArray[np.float64]

FEW = 15
"""Units from which on a percentile bootstrap interval is about as wide as it says."""


@dataclass(frozen=True)
class Summary:
    """A mean with its percentile bootstrap interval. NaN throughout when `n`, the number of units, is 0."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean paired difference with its interval, and the two-sided p of the paired test, uncorrected."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def cluster_means(values: npt.ArrayLike, clusters: Sequence[str]) -> tuple[Values, list[str]]:
    """Mean of each cluster's defined (not NaN) values, and the clusters' names, sorted; NaN where none is defined."""
    given = np.asarray(values, np.float64)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    defined = ~np.isnan(given)
    count = np.bincount(index[defined], minlength=len(names))
    total = np.bincount(index[defined], given[defined], minlength=len(names))
    return np.divide(total, count, out=np.full(len(names), np.nan), where=count > 0), [str(name) for name in names]


def resamples(units: int, draws: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(draws, units): how often each unit is in each bootstrap sample of `units` units, drawn with replacement."""
    return rng.multinomial(units, np.full(units, 1 / units), size=draws)


def bootstrap_mean(values: npt.ArrayLike, clusters: Sequence[str] | None = None, *, draws: int = 2000, level: float = 0.95,
                   seed: int = 0) -> Summary:
    """Mean and percentile bootstrap interval (Efron 1979).

    Args:
        values: (n,); NaN is left out.
        clusters: what each value belongs to (patients). Values are first averaged within clusters, then whole clusters
            are drawn, so that each counts once whatever its number of clips. None: every value is its own.
        draws: bootstrap samples, all in one array of counts (draws, n).
        level: coverage. With fewer than `FEW` units a percentile interval is somewhat too narrow.
    """
    units = np.asarray(values, np.float64) if clusters is None else cluster_means(values, clusters)[0]
    units = units[~np.isnan(units)]
    n = len(units)
    if n == 0:
        return Summary(float("nan"), float("nan"), float("nan"), 0)
    counts = resamples(n, draws, np.random.default_rng(seed))
    low, high = np.quantile(counts @ units / n, [(1 - level) / 2, (1 + level) / 2])
    return Summary(float(units.mean()), float(low), float(high), n)


def pooled_mean(values: npt.ArrayLike, clusters: Sequence[str], *, draws: int = 2000, level: float = 0.95,
                seed: int = 0) -> Summary:
    """Mean in which every value counts once, however many its cluster has; whole clusters are drawn for its interval.

    Args:
        values: (n,), n at least 1, none NaN.
        clusters: what each value belongs to (conditions); `n` of the result is their number.
    """
    given = np.asarray(values, np.float64)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    total, count = np.bincount(index, given), np.bincount(index)
    drawn = resamples(len(names), draws, np.random.default_rng(seed))
    low, high = np.quantile(drawn @ total / (drawn @ count), [(1 - level) / 2, (1 + level) / 2])
    return Summary(float(given.mean()), float(low), float(high), len(names))


def few(units: int, name: str) -> list[str]:
    """What is doubtful about a bootstrap interval over so many units; [] if nothing is."""
    return [f"{units} {name}: an interval over fewer than {FEW} is too narrow"] if units < FEW else []


@dataclass(frozen=True)
class Gain:
    """What leaving some out does to a mean: after minus before, with its percentile bootstrap interval. None: undefined."""

    before: float | None
    after: float | None
    gain: float | None
    low: float | None
    high: float | None


def bootstrap_gain(values: npt.ArrayLike, kept: npt.ArrayLike, clusters: Sequence[str], *, draws: int = 2000,
                   level: float = 0.95, seed: int = 0) -> Gain:
    """Mean of the values that are kept, beside the mean of all; every value counts once, whole clusters are drawn.

    Args:
        values: (n,); NaN is left out.
        kept: (n,) bool.
        clusters: what each value belongs to (conditions).
    """
    given, chosen = np.asarray(values, np.float64), np.asarray(kept, bool)
    known = ~np.isnan(given)
    if not known.any():
        return Gain(None, None, None, None, None)
    given, chosen = given[known], chosen[known]
    names, index = np.unique(np.asarray(clusters)[known], return_inverse=True)
    if not chosen.any():
        return Gain(float(given.mean()), None, None, None, None)
    total, count, kept_total, kept_count = (
        np.bincount(index, weights, len(names)) for weights in (given, np.ones_like(given), given * chosen, chosen * 1.0)
    )
    drawn = resamples(len(names), draws, np.random.default_rng(seed)).astype(np.float64)
    with np.errstate(invalid="ignore"):  # a draw without any kept value is undefined
        change = drawn @ kept_total / (drawn @ kept_count) - drawn @ total / (drawn @ count)
    low, high = np.nanquantile(change, [(1 - level) / 2, (1 + level) / 2])
    before, after = float(given.mean()), float(given[chosen].mean())
    return Gain(before, after, after - before, float(low), float(high))


def paired_difference(first: npt.ArrayLike, second: npt.ArrayLike, *, draws: int = 2000, level: float = 0.95,
                      seed: int = 0) -> Difference:
    """first - second over the same units in the same order; a unit with a NaN is left out.

    The test is Wilcoxon's signed-rank test on the units' means (p = 1 when none differs): it speaks of other patients, the
    trained networks being as they are. The interval draws units and, independently, trainings (the pigeonhole bootstrap, Owen
    2007), so that it speaks of other trainings as well; with few of them it is rough, but one lucky seed cannot carry it.

    Args:
        first, second: (n,), or (n, S) with one column a training (seed), paired between the two.

    Raises:
        ValueError: if the two have different shapes.
    """
    left, right = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if left.shape != right.shape:
        raise ValueError(f"first has shape {left.shape}, second {right.shape}; pairs need the same units in the same order")
    change = (left - right).reshape(len(left), -1)
    change = change[~np.isnan(change).any(1)]
    n, trainings = change.shape
    if n == 0:
        return Difference(float("nan"), float("nan"), float("nan"), 1.0, 0)
    rng = np.random.default_rng(seed)
    of_units, of_trainings = resamples(n, draws, rng), resamples(trainings, draws, rng)
    drawn = (of_units @ change * of_trainings).sum(1) / (n * trainings)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    means = change.mean(1)
    p = float(wilcoxon(means).pvalue) if np.any(means != 0) else 1.0
    return Difference(float(means.mean()), float(low), float(high), p, n)


def resplit_mean(values: npt.ArrayLike, test_to_train: float, *, level: float = 0.95) -> Difference:
    """Mean over random splits into training and test, with its interval and the p of its being 0.

    Nadeau & Bengio's (2003) corrected resampled t-test: splits of the same patients share most of them, so the variance of the
    mean of K splits is s^2 (1 / K + n_test / n_train), not s^2 / K. The interval has K - 1 degrees of freedom.

    Args:
        values: (K,), one of each split, e.g. the difference of two arms.
        test_to_train: n_test / n_train, in patients.

    Raises:
        ValueError: for fewer than two splits, whose spread says nothing.
    """
    given = np.asarray(values, np.float64)
    if len(given) < 2:
        raise ValueError(f"{len(given)} split has no spread; give at least two")
    mean, n = float(given.mean()), len(given)
    error = float(given.std(ddof=1)) * np.sqrt(1 / n + test_to_train)
    reach = float(student.ppf((1 + level) / 2, n - 1)) * error
    p = 1.0 if mean == 0 else 0.0 if error == 0 else float(2 * student.sf(abs(mean) / error, n - 1))
    return Difference(mean, mean - reach, mean + reach, p, n)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) corrected p values, in the order given; [] for [].

    The same numbers as statsmodels' `multipletests`, which collects garbage at every call: a fifth of a second beside torch.
    """
    given = np.asarray(p, np.float64)
    order = np.argsort(given)
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)).clip(max=1)
    corrected = np.empty_like(given)
    corrected[order] = stepped
    return [float(value) for value in corrected]
