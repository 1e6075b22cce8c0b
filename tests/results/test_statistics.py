"""Intervals cover what they claim, on simulated data whose truth is known."""

import numpy as np
import pytest

from fastsample.results import statistics
from fastsample.results.statistics import Estimate, difference, holm, mean_interval, mean_of, paired_interval, pool


def skewed(rng, shape):
    """Like per-sample PSNR: a bulk with a long tail, mean 0."""
    return rng.gamma(2.0, 1.5, shape) - 3.0


def heavy(rng, shape):
    """Student's t with four degrees of freedom."""
    return rng.standard_t(4, shape)


def coverage(intervals, truth):
    return np.mean([one.low <= truth <= one.high for one in intervals])


@pytest.mark.parametrize("draw", [skewed, heavy])
@pytest.mark.parametrize(("count", "repeats"), [(32, 3000), (1000, 600)])
def test_intervals_of_a_mean_cover(draw, count, repeats):
    rng = np.random.default_rng(0)
    found = [mean_interval(30 + draw(rng, count)) for _ in range(repeats)]
    assert 0.92 <= coverage(found, 30) <= 0.98


def test_intervals_of_a_paired_difference_cover_and_are_sharp():
    rng = np.random.default_rng(1)
    pairs, single = [], []
    for _ in range(600):
        first = 30 + 3 * skewed(rng, 200)
        second = first - 0.1 + 0.2 * heavy(rng, 200)
        pairs.append(paired_interval(first, second))
        single.append(mean_interval(first))
    assert 0.92 <= coverage(pairs, 0.1) <= 0.98
    assert np.median([one.high - one.low for one in pairs]) < 0.1 * np.median([one.high - one.low for one in single])


def test_intervals_of_independent_samples_cover():
    rng = np.random.default_rng(2)
    found = [
        difference({0: mean_of(skewed(rng, 50))}, {1: mean_of(2 + 4 * skewed(rng, 150))}).interval() for _ in range(600)
    ]
    assert 0.92 <= coverage(found, -2) <= 0.98


@pytest.mark.parametrize("shared", [0.0, 0.3], ids=["fresh samples", "something common to a seed"])
def test_intervals_over_seeds_cover(shared):
    """What all samples of a seed have in common shows between the seeds alone."""
    rng = np.random.default_rng(3)
    found = [
        pool([mean_of(shared * rng.standard_normal() + skewed(rng, 100)) for _ in range(8)]).interval()
        for _ in range(600)
    ]
    assert (0.90 if shared else 0.92) <= coverage(found, 0) <= 0.98


def test_an_interval_tells_what_it_can():
    values = np.random.default_rng(4).standard_normal(5000)  # more than are resampled one by one
    found = mean_interval(values, level=0.9)
    assert found.level == 0.9
    assert found.value == values.mean()
    assert (found.high - found.low) / 2 == pytest.approx(1.645 * values.std(ddof=1) / np.sqrt(5000), rel=0.05)
    assert mean_interval(values + 1).excludes_zero
    assert not paired_interval(values, values[::-1]).excludes_zero
    same = paired_interval(values, values)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert not same.excludes_zero


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="at least 8 samples, not 7"):
        mean_interval(np.arange(7.0))
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        mean_interval(np.arange(9.0), level=95)
    with pytest.raises(ValueError, match="as many of both"):
        paired_interval(np.arange(9.0), np.arange(8.0))


def test_p_values_are_students():
    """Against scipy's t and Welch's test; uniform on honest data."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    one, two = rng.standard_normal(12) + 1, 3 * rng.standard_normal(30)
    assert mean_of(one).p_above() == pytest.approx(stats.ttest_1samp(one, 0, alternative="greater").pvalue, rel=0.02)
    welch = stats.ttest_ind(one, two, equal_var=False, alternative="greater").pvalue
    assert difference({0: mean_of(one)}, {1: mean_of(two)}).p_above() == pytest.approx(welch, rel=0.02)
    assert mean_of(one).p_above(0.5) > mean_of(one).p_above()
    assert mean_of(np.ones(9)).p_above() == 0
    assert mean_of(np.ones(9)).p_above(1) == 1
    estimate = mean_of(one)
    assert Estimate(estimate.reach(1e-3), estimate.parts).p_above() == pytest.approx(1e-3)


def test_seeds_are_paired_where_they_are_the_same():
    rng = np.random.default_rng(6)
    first = {seed: 5 * rng.standard_normal(100) for seed in (0, 1)}
    near = {seed: mean_of(values + 0.1 * rng.standard_normal(100)) for seed, values in first.items()}
    known = {seed: mean_of(values) for seed, values in first.items()}
    paired = difference(near, known)
    other = difference({7: near[0]}, known)
    assert paired.value == pytest.approx(np.mean([near[seed].value - known[seed].value for seed in (0, 1)]))
    assert paired.standard_error < 0.05 * other.standard_error


def test_holm_keeps_the_family_wise_level():
    assert holm([0.004, 0.0001, 0.2, 0.0026], 0.01) == [True, True, False, True]
    assert holm([0.006, 0.0001, 0.2, 0.0026], 0.01) == [False, True, False, True]
    assert holm([0.004, 0.0051], 0.005) == [False, False]
    assert holm([]) == []
    rng = np.random.default_rng(7)
    assert np.mean([any(holm(list(rng.random(20)), 0.05)) for _ in range(2000)]) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shared", [0.0, 0.3, 3.0], ids=["fresh samples", "a little common", "much common"])
def test_intervals_over_few_seeds_cover(count, shared):
    """With Student's t of as many seeds; not much too wide where the samples tell more."""
    rng = np.random.default_rng((8, count))
    found = [
        pool([mean_of(shared * rng.standard_normal() + skewed(rng, 100)) for _ in range(count)]).interval()
        for _ in range(600)
    ]
    assert 0.93 <= coverage(found, 0) <= (1 if count == 2 else 0.99)


def test_few_seeds_weigh_on_differences_and_p_values():
    rng = np.random.default_rng(9)
    base, same = rng.standard_normal(400), {0: 0.0, 1: 0.4}
    first = {seed: mean_of(5 + shift + base) for seed, shift in same.items()}
    second = {seed: mean_of(4 + 0.01 * rng.standard_normal(400) + base) for seed in same}
    paired = difference(first, second)
    half = 12.706 * np.std([one.value - second[seed].value for seed, one in first.items()], ddof=1) / np.sqrt(2)
    assert paired.interval().high - paired.value == pytest.approx(half, rel=1e-3)
    assert paired.interval().low < 0 < paired.value  # two seeds that differ by 0.4 do not make 1.2 sure
    assert paired.p_above() == pytest.approx(0.053, abs=0.005)
    assert paired.p_above(paired.value - paired.reach(0.01)) == pytest.approx(0.01)
    unpaired = difference(first, {7: second[0]})
    assert unpaired.interval().high - unpaired.value > 1.5
    assert unpaired.standard_error > pool(list(first.values())).standard_error > first[0].standard_error


def test_an_interval_is_the_same_at_every_call_and_studentised():
    """The numbers are those of these resamples; percentiles of the means are less skewed than t."""
    values = np.random.default_rng(10).exponential(size=24)
    found = mean_interval(values)
    statistics._resamples.cache_clear()
    assert mean_interval(values) == found
    left, right = found.value - found.low, found.high - found.value
    assert (left, right) == (pytest.approx(0.2854562, rel=1e-5), pytest.approx(0.4178979, rel=1e-5))
    means = np.random.default_rng(0).choice(values, (4000, 24)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert right / left > 1.15 * (high - found.value) / (found.value - low)
