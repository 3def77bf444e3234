"""Against scikit-learn, resample by resample, and against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, recall_score, roc_auc_score

from tasks.metrics.classification import classification_metrics, mcnemar_exact, patient_resamples, video_jaccard

CLASSES = ("mild", "moderate", "severe")


def predictions(number: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, number)
    logits = rng.normal(0, 1, (number, 3)) + 1.2 * np.eye(3)[truth]
    logits = logits.round(1)  # some scores tie
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth


def by_sklearn(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    called = probabilities.argmax(1)
    one_vs_rest = [accuracy_score(truth == label, called == label) for label in range(3)]
    return {
        "accuracy": accuracy_score(truth, called),
        "balanced_accuracy": balanced_accuracy_score(truth, called),
        "f1": f1_score(truth, called, average="macro"),
        "one_vs_rest_accuracy": float(np.mean(one_vs_rest)),
        "auroc": float(np.mean([roc_auc_score(truth == label, probabilities[:, label]) for label in range(3)])),
        "sensitivity_severe": recall_score(truth == 2, called == 2),
        "specificity_severe": recall_score(truth != 2, called != 2),
    }


def test_values_are_scikit_learns() -> None:
    probabilities, truth = predictions()
    found = classification_metrics(probabilities, truth, CLASSES, draws=10)
    for name, value in by_sklearn(probabilities, truth).items():
        assert found[name].value == pytest.approx(value), name


def test_intervals_are_those_of_a_loop_over_resamples() -> None:
    probabilities, truth = predictions(90)
    found = classification_metrics(probabilities, truth, CLASSES, draws=200, seed=3)
    counts = np.random.default_rng(3).multinomial(90, np.full(90, 1 / 90), size=200)
    rows = [np.repeat(np.arange(90), one) for one in counts]
    loop = [by_sklearn(probabilities[row], truth[row]) for row in rows]
    for name in loop[0]:
        low, high = np.quantile([one[name] for one in loop], [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high)), name


def test_clips_of_one_patient_are_drawn_together() -> None:
    """Ten copies of every clip say nothing new: with patients as units the interval is that of one copy."""
    probabilities, truth = predictions(40)
    names = [f"p{row:02d}" for row in range(40)]
    once = classification_metrics(probabilities, truth, CLASSES, units=names)["accuracy"]
    copies = classification_metrics(probabilities.repeat(10, 0), truth.repeat(10), CLASSES, units=np.repeat(names, 10).tolist())
    assert (copies["accuracy"].low, copies["accuracy"].high) == pytest.approx((once.low, once.high))
    naive = classification_metrics(probabilities.repeat(10, 0), truth.repeat(10), CLASSES)["accuracy"]
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_a_constant_predictor_is_at_chance() -> None:
    truth = np.array([0] * 30 + [1] * 10)
    found = classification_metrics(np.tile([0.7, 0.3], (40, 1)), truth, ("regular", "abnormal"))
    assert found["accuracy"].value == 0.75 and found["balanced_accuracy"].value == 0.5 and found["auroc"].value == 0.5
    assert found["sensitivity_abnormal"].value == 0 and found["specificity_abnormal"].value == 1


def test_three_classes_look_better_one_against_the_rest() -> None:
    """accuracy = 1 - (C / 2) (1 - a), the identity by which the paper's table was read."""
    found = classification_metrics(*predictions(), CLASSES, draws=10)
    assert found["accuracy"].value == pytest.approx(1 - 1.5 * (1 - found["one_vs_rest_accuracy"].value))


def test_a_class_nobody_shows_is_left_out_of_the_means() -> None:
    probabilities, truth = predictions()
    rows = truth != 2
    found = classification_metrics(probabilities[rows], truth[rows], CLASSES, draws=10)
    assert math.isnan(found["sensitivity_severe"].value)
    mean = np.mean([found["sensitivity_mild"].value, found["sensitivity_moderate"].value])
    assert found["balanced_accuracy"].value == pytest.approx(mean)


def test_mcnemar_counts_only_the_clips_on_which_they_differ() -> None:
    truth = np.zeros(20, int)
    first, second = np.zeros(20, int), np.zeros(20, int)
    second[:7], first[7] = 1, 1  # seven errors of the second alone, one of the first
    assert mcnemar_exact(first, second, truth) == pytest.approx(binomtest(1, 8).pvalue)
    assert mcnemar_exact(first, first, truth) == 1


@pytest.mark.parametrize(("shape", "labels"), [((3, 2), [0, 1, 2]), ((0, 3), []), ((2, 3), [0, 3]), ((2, 3), [0])])
def test_what_does_not_fit_is_refused(shape: tuple[int, int], labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"probabilities|labels"):
        classification_metrics(np.full(shape, 0.5), np.array(labels, int), CLASSES)


def test_jaccard_is_that_of_scikit_learn_video_by_video() -> None:
    """Averaged as the field does; a class that a video neither shows nor is given is left out of that video."""
    rng = np.random.default_rng(3)
    truth, calls, videos = rng.integers(0, 3, 60), rng.integers(0, 3, 60), np.repeat(np.arange(6), 10)
    truth[videos == 2], calls[videos == 2] = truth[videos == 2] % 2, calls[videos == 2] % 2  # "severe" is not in video 2
    counts = patient_resamples(videos // 2, 50, 0)
    found = video_jaccard(calls, truth, videos, CLASSES, counts)
    for draw in range(51):
        of_class = []
        for label, name in enumerate(CLASSES):
            own = [(counts[draw, at][0], truth[at] == label, calls[at] == label) for at in (videos == one for one in range(6))]
            values = [(times, jaccard_score(*pair)) for times, *pair in own if np.any(pair)]
            weight = sum(times for times, _ in values)
            of_class.append(sum(times * value for times, value in values) / weight if weight else math.nan)
            assert found[f"jaccard_{name}"][draw] == pytest.approx(of_class[-1], nan_ok=True)
        assert found["video_jaccard"][draw] == pytest.approx(np.nanmean(of_class))


def test_jaccard_by_hand() -> None:
    truth, calls, videos = [0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]
    found = video_jaccard(calls, truth, videos, ("a", "b"), np.ones((1, 6)))
    assert found["jaccard_a"][0] == (1 / 2 + 1) / 2 and found["jaccard_b"][0] == 2 / 3  # video 1 says nothing of b
    assert found["video_jaccard"][0] == (3 / 4 + 2 / 3) / 2
