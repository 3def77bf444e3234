"""How well clips are classified: from probabilities, with percentile bootstrap intervals over the test set.

Every metric is a function of a confusion matrix or of ranks, so the resamples are one array of counts and no loop.

The "accuracy" of Ctrl-GenAug's Table 2 is almost surely the mean of one-vs-rest accuracies (its values fit k / (N C), not
k / N), which looks far better than plain accuracy; it has a name of its own here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from statsmodels.stats.contingency_tables import mcnemar

from tasks.statistics import Values, resamples


@dataclass(frozen=True)
class Estimate:
    """A metric on the test set and its 95 % percentile bootstrap interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


def classification_metrics(probabilities: npt.ArrayLike, truth: npt.ArrayLike, classes: Sequence[str], *,
                           units: Sequence[str] | None = None, draws: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """Every metric with its interval.

    "accuracy"; "balanced_accuracy", the mean sensitivity; "auroc", macro one-vs-rest from probabilities; "f1", macro;
    "one_vs_rest_accuracy"; and by class "sensitivity_<class>", "specificity_<class>". A class that a (re)sample does not
    show, or shows alone, is left out of that sample's means. The predicted class is the most likely one, ties by order.

    Args:
        probabilities: (N, C), rows of the classes' probabilities.
        truth: (N,) integers in 0..C-1.
        classes: names of the C classes.
        units: what is resampled, e.g. each clip's patient: clips of one patient are not independent. None: every clip.
        draws: bootstrap samples.

    Raises:
        ValueError: for shapes that do not fit, labels out of range, or no clip.
    """
    _check(np.asarray(probabilities), np.asarray(truth), len(classes))
    unit = np.arange(np.size(truth)) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    counts = patient_resamples(unit, draws, seed)
    return {name: estimate(values) for name, values in metric_values(probabilities, truth, classes, counts).items()}


def patient_resamples(unit: npt.NDArray[np.int64], draws: int, seed: int) -> Values:
    """(1 + draws, N) how often each clip counts: once each, then in bootstrap samples in which the clips of a unit go together.

    Args:
        unit: (N,) number of each clip's unit, from 0.
    """
    drawn = resamples(int(unit.max()) + 1, draws, np.random.default_rng(seed))[:, unit]
    return np.concatenate([np.ones((1, len(unit))), drawn])


def video_jaccard(calls: npt.ArrayLike, truth: npt.ArrayLike, videos: npt.ArrayLike, classes: Sequence[str],
                  counts: Values) -> dict[str, Values]:
    """Jaccard indices video by video, averaged over videos and then over classes ("Metrics Matter", Funke et al. 2023).

    Of a video and a class, TP / (TP + FP + FN) over the video's clips; where neither truth nor calls show the class it is
    undefined and left out.

    Args:
        calls, truth: (N,) integers in 0..C-1.
        videos: (N,) integers from 0.
        counts: (D, N) weightings in which all clips of a video count alike.

    Returns:
        (D,) "video_jaccard" and, by class, "jaccard_<class>".
    """
    called, labels, video = (np.asarray(one, np.int64) for one in (calls, truth, videos))
    shape = (int(video.max()) + 1, len(classes))
    both, either = np.zeros(shape), np.zeros(shape)
    np.add.at(both, (video[called == labels], labels[called == labels]), 1)
    for one in (called, labels):
        np.add.at(either, (video, one), 1)
    either -= both
    index = np.divide(both, either, out=np.full(shape, np.nan), where=either > 0)  # (V, C)
    first = np.unique(video, return_index=True)[1]
    weight, defined = counts[:, first], ~np.isnan(index)
    total, sums = weight @ defined, weight @ np.where(defined, index, 0)  # (D, C)
    by_class = np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    table = {"video_jaccard": _mean_of_defined(by_class.T)}
    return table | {f"jaccard_{name}": by_class[:, place] for place, name in enumerate(classes)}


def metric_values(probabilities: npt.ArrayLike, truth: npt.ArrayLike, classes: Sequence[str],
                  counts: Values) -> dict[str, Values]:
    """(D,) values of every metric for D weightings (D, N) of the clips; arguments as for `classification_metrics`."""
    given, labels = np.asarray(probabilities, np.float64), np.asarray(truth, np.int64)
    number = len(classes)
    _check(given, labels, number)
    cells = np.eye(number * number)[labels * number + given.argmax(1)]
    table = _from_confusion((counts @ cells).reshape(-1, number, number), classes)
    areas = np.stack([_auroc(given[:, one], labels == one, counts) for one in range(number)])
    table["auroc"] = _mean_of_defined(areas)
    return table


def _check(given: npt.NDArray[Any], labels: npt.NDArray[Any], number: int) -> None:
    if given.ndim != 2 or given.shape[1] != number or labels.shape != given.shape[:1] or not len(labels):
        raise ValueError(f"probabilities {given.shape} and truth {labels.shape} must be (N, {number}) and (N,), N >= 1")
    if labels.min() < 0 or labels.max() >= number:
        raise ValueError(f"truth has labels {labels.min()} to {labels.max()}, but there are {number} classes from 0")


def mcnemar_exact(first: npt.ArrayLike, second: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Two-sided exact p of McNemar's test (1947) that two classifiers of the same clips err equally often.

    Args:
        first, second: (N,) predicted labels.
        truth: (N,) labels.
    """
    right, other = np.asarray(first) == np.asarray(truth), np.asarray(second) == np.asarray(truth)
    table = [[int(((right == a) & (other == b)).sum()) for b in (True, False)] for a in (True, False)]
    return float(mcnemar(table, exact=True).pvalue)


def _from_confusion(confusion: Values, classes: Sequence[str]) -> dict[str, Values]:
    """Metrics (D,) of D confusion matrices (D, truth, predicted)."""
    total = confusion.sum((1, 2))
    hit = confusion.diagonal(axis1=1, axis2=2)  # (D, C)
    shown, called = confusion.sum(2), confusion.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = hit / shown
        specificity = (total[:, None] - shown - called + hit) / (total[:, None] - shown)
        f1 = np.where(shown > 0, 2 * hit / (shown + called), np.nan)
    table = {
        "accuracy": hit.sum(1) / total,
        "balanced_accuracy": _mean_of_defined(sensitivity.T),
        "f1": _mean_of_defined(f1.T),
        "one_vs_rest_accuracy": (1 - (shown + called - 2 * hit) / total[:, None]).mean(1),
    }
    for place, name in enumerate(classes):
        table[f"sensitivity_{name}"], table[f"specificity_{name}"] = sensitivity[:, place], specificity[:, place]
    return table


def _auroc(score: Values, positive: npt.NDArray[np.bool_], counts: Values) -> Values:
    """(D,) area under the ROC curve of D weightings (D, N): the share of pairs in the right order, ties by half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of each run of equal scores
    up, down = (np.add.reduceat(counts[:, order] * one[order], starts, axis=1) for one in (positive, ~positive))
    below = down.cumsum(1) - down
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Values = (up * (below + down / 2)).sum(1) / (up.sum(1) * down.sum(1))
    return area


def _mean_of_defined(values: Values) -> Values:
    """Mean over the first axis without NaN; NaN where all are."""
    defined = ~np.isnan(values)
    number = defined.sum(0)
    total = np.where(defined, values, 0).sum(0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def estimate(values: Values) -> Estimate:
    """From the value on the whole set, first, and those of its bootstrap samples."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))
