"""Intervals cover, clusters widen them, corrected p values are those worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from tasks.statistics import (
    FEW,
    Gain,
    Summary,
    bootstrap_gain,
    bootstrap_mean,
    cluster_means,
    few,
    holm,
    paired_difference,
    pooled_mean,
)


def test_cluster_means_by_hand() -> None:
    means, names = cluster_means([1.0, 3.0, 5.0, float("nan"), float("nan")], ["b", "b", "a", "a", "c"])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(means, [5, 2, float("nan")])


def test_bootstrap_of_a_constant_and_of_nothing() -> None:
    assert bootstrap_mean([0.5] * 7) == Summary(0.5, 0.5, 0.5, 7)
    nothing = bootstrap_mean([float("nan")])
    assert nothing.n == 0 and all(math.isnan(value) for value in (nothing.mean, nothing.low, nothing.high))


def test_bootstrap_of_two_values_by_hand() -> None:
    """Of two units the mean of a draw is 0, 1/2 or 1 with chance 1/4, 1/2, 1/4: both ends of a 40 % interval are 1/2."""
    result = bootstrap_mean([0.0, 1.0], level=0.4, draws=20000)
    assert (result.low, result.mean, result.high) == (0.5, 0.5, 0.5)
    wide = bootstrap_mean([0.0, 1.0])
    assert (wide.low, wide.high) == (0, 1)


def test_bootstrap_matches_the_normal_interval_when_units_are_many() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    result = bootstrap_mean(values, draws=20000)
    half = 1.96 * values.std() / math.sqrt(400)
    np.testing.assert_allclose([result.low, result.high], [values.mean() - half, values.mean() + half], atol=0.02 * 2)


def test_intervals_cover_as_often_as_they_say() -> None:
    """1000 simulated studies of 40 skewed patients: 95 % intervals hold the true mean 1 in about 93-95 % of them."""
    rng = np.random.default_rng(2)
    hits = [result.low <= 1 <= result.high for study in rng.gamma(4, 0.25, (1000, 40))
            if (result := bootstrap_mean(study, draws=1000))]
    assert 0.91 <= np.mean(hits) <= 0.97


def test_a_pooled_mean_counts_every_value_once_and_draws_whole_clusters() -> None:
    """One cluster of 9 values of 1 and one of a single 0: of a draw the mean is 0, 0.9 or 1 with chance 1/4, 1/2, 1/4."""
    values, names = [1.0] * 9 + [0.0], ["many"] * 9 + ["one"]
    assert pooled_mean(values, names, level=0.4, draws=20000) == Summary(0.9, 0.9, 0.9, 2)
    assert pooled_mean(values, names) == Summary(0.9, 0, 1, 2)
    each = [str(row) for row in range(10)]
    assert pooled_mean(values, each) == bootstrap_mean(values, each)  # a cluster a value: the same draws


def test_few_units_are_doubtful() -> None:
    assert few(FEW, "conditions") == []
    assert few(FEW - 1, "conditions") == ["14 conditions: an interval over fewer than 15 is too narrow"]


def test_clusters_widen_the_interval_when_clips_of_a_patient_agree() -> None:
    """20 patients of 10 equal clips: the naive interval is too narrow by about the square root of 10."""
    patients = np.random.default_rng(3).normal(size=20)
    names = [str(number) for number in np.repeat(np.arange(20), 10)]
    naive, clustered = bootstrap_mean(np.repeat(patients, 10)), bootstrap_mean(np.repeat(patients, 10), names)
    assert clustered.n == 20 and naive.n == 200
    assert naive.mean == pytest.approx(clustered.mean)
    assert 2.6 < (clustered.high - clustered.low) / (naive.high - naive.low) < 3.8


def test_a_patient_counts_once_however_many_clips() -> None:
    assert bootstrap_mean([0.0] * 9 + [1.0], ["a"] * 9 + ["b"]).mean == 0.5


def test_paired_difference_by_hand() -> None:
    """Six gains of six: the exact two-sided p of the signed-rank test is 2 / 2^6."""
    base = np.arange(6.0)
    better = base + np.arange(1, 7) / 10
    result = paired_difference(better, base)
    assert result.mean == pytest.approx(0.35) and result.p == pytest.approx(2 / 64) and result.n == 6
    assert 0.1 < result.low < 0.35 < result.high < 0.6
    mirrored = paired_difference(base, better)
    assert mirrored.mean == pytest.approx(-result.mean) and mirrored.p == pytest.approx(result.p)


def test_one_lucky_training_cannot_carry_an_interval() -> None:
    """Every patient gains the same, but by +0.04, +0.03 and -0.02 in three trainings: means of three draws reach below 0."""
    base = np.random.default_rng(5).normal(0.7, 0.1, (80, 1)).repeat(3, 1)
    seeds = np.array([0.04, 0.03, -0.02])
    result = paired_difference(base + seeds, base)
    assert result.mean == pytest.approx(0.05 / 3) and result.p < 1e-6
    assert result.low == pytest.approx(-0.02) and result.high == pytest.approx(0.04)
    assert paired_difference((base + seeds).mean(1), base.mean(1)).low > 0  # averaged first, it would look certain


def test_an_interval_over_patients_and_trainings_covers_both() -> None:
    """Simulated studies of 30 patients and 10 trainings with effects of both: it holds 0 about as often as it says."""
    rng = np.random.default_rng(6)
    hits = []
    for _ in range(300):
        study = rng.normal(0, 1, (30, 1)) + rng.normal(0, 1, (1, 10)) + rng.normal(0, 1, (30, 10))
        result = paired_difference(study, np.zeros_like(study), draws=500)
        hits.append(result.low <= 0 <= result.high)
    assert 0.88 <= np.mean(hits) <= 0.99


def test_paired_difference_without_difference_or_with_gaps() -> None:
    same = paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    gap = paired_difference([1.0, float("nan"), 3.0], [0.0, 0.0, float("nan")])
    assert gap.n == 1 and gap.mean == 1
    assert paired_difference([float("nan")], [0.0]).n == 0
    with pytest.raises(ValueError, match="same units in the same order"):
        paired_difference([1.0, 2.0], [1.0])


def test_paired_test_is_level_under_no_difference() -> None:
    rng = np.random.default_rng(4)
    false_alarms = [paired_difference(one, two, draws=2).p < 0.05 for one, two in rng.normal(size=(1000, 2, 20))]
    assert 0.03 <= np.mean(false_alarms) <= 0.07


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1 and never falling: 0.04, 0.06, 0.06, 0.4."""
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_holm_equals_statsmodels() -> None:
    for p in np.random.default_rng(5).uniform(size=(4, 9)) ** 3:
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_uncorrected_and_bonferroni(p: list[float]) -> None:
    for raw, corrected in zip(p, holm(p), strict=True):
        assert raw <= corrected + 1e-12 and corrected <= min(1, raw * len(p)) + 1e-12


def test_gain_of_leaving_out() -> None:
    rng = np.random.default_rng(0)
    clusters = [f"c{row // 4}" for row in range(400)]
    values = (rng.random(400) < 0.5).astype(float)
    values[7] = np.nan
    kept = (values == 1) | (rng.random(400) < 0.3)
    found = bootstrap_gain(values, kept, clusters)
    assert found.before == pytest.approx(np.nanmean(values)) and found.after == pytest.approx(np.nanmean(values[kept]))
    assert found.gain == pytest.approx(found.after - found.before)
    assert 0 < found.low < found.gain < found.high
    # clusters are the units: the interval is that of drawing them one by one
    blocks = [(values[row : row + 4], kept[row : row + 4]) for row in range(0, 400, 4)]
    drawn = []
    for _ in range(1000):
        taken = [blocks[one] for one in rng.integers(0, 100, 100)]
        chosen, held = (np.concatenate(part) for part in zip(*taken, strict=True))
        drawn.append(np.nanmean(chosen[held]) - np.nanmean(chosen))
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_a_gain_of_nothing_is_undefined() -> None:
    assert bootstrap_gain([1.0, 0.0], [False, False], ["a", "b"]) == Gain(0.5, None, None, None, None)
    assert bootstrap_gain([np.nan], [True], ["a"]) == Gain(None, None, None, None, None)
