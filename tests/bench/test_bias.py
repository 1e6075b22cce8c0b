"""The bias of a Frechet distance, its extrapolation and its intervals, on Gaussians with a known distance."""

import numpy as np
import pytest

from fastsample.bench.bias import _influence, bootstrap_spread, extrapolate, paired_difference
from fastsample.bench.metrics import features_distance, frechet_distance

D = 16
SCALES = np.linspace(0.5, 1.5, D)
REFERENCE = np.zeros(D), np.diag(SCALES)


def samples(count, shift=0.0, stretch=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return shift + stretch * SCALES * rng.standard_normal((count, D))


def distance(shift, stretch):
    return D * shift**2 + np.sum(((stretch - 1) * SCALES) ** 2)


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.05, 1.0), (0.1, 1.2)])
def test_the_intercept_is_the_distance_within_its_error(shift, stretch):
    pulls = []
    for seed in range(8):
        found = extrapolate(samples(8000, shift, stretch, seed), REFERENCE, seed=seed)
        pulls.append((found.value - distance(shift, stretch)) / found.standard_error)
        assert found.slope > 0
    assert np.abs(pulls).max() < 3
    assert np.abs(np.mean(pulls)) < 1.5
    assert 0.3 < np.std(pulls) < 2  # the error is neither too large nor too small


def test_the_bias_falls_with_the_number_of_samples():
    features = samples(50_000, 0.02)
    few, many = (features_distance(features[:count], REFERENCE) for count in (5_000, 50_000))
    found = extrapolate(features, REFERENCE)
    assert few > many > found.value
    assert found.value == pytest.approx(distance(0.02, 1), abs=3 * found.standard_error)
    assert found.slope == pytest.approx((few - many) * 50_000 / 9, rel=0.3)
    assert (found.sizes.min(), found.sizes.max(), len(found.sizes)) == (5_000, 50_000, 28)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 48 samples, not 40"):
        extrapolate(samples(40), REFERENCE)


def test_the_influence_is_the_derivative():
    features, count = samples(400, 0.1, 1.3), 400

    def weighted(weights):
        weights = weights / weights.sum()
        mu = weights @ features
        centred = features - mu
        return frechet_distance(mu, (weights[:, None] * centred).T @ centred, *REFERENCE)

    influence = _influence(features, REFERENCE)
    for n in (0, 17, 399):
        up, down = np.ones(count), np.ones(count)
        up[n], down[n] = 1.01, 0.99
        assert (weighted(up) - weighted(down)) / 0.02 * count == pytest.approx(influence[n], rel=1e-2, abs=1e-3)


def test_a_paired_difference_is_sharper_than_its_parts():
    first = samples(2000, 0.1)
    second = first + 0.02
    found = paired_difference(first, second, REFERENCE)
    assert found.value == features_distance(first, REFERENCE) - features_distance(second, REFERENCE)
    assert found.low < distance(0.1, 1) - distance(0.12, 1) < found.high < 0
    assert found.spread < 0.5 * bootstrap_spread(first, REFERENCE)
    same = paired_difference(first, first, REFERENCE, resamples=5)
    assert (same.value, same.low, same.high, same.spread) == (0, 0, 0, 0)


def test_the_spread_is_that_of_fresh_samples():
    fresh = np.std([features_distance(samples(1000, 0.2, seed=seed), REFERENCE) for seed in range(60)], ddof=1)
    assert bootstrap_spread(samples(1000, 0.2), REFERENCE, resamples=60) == pytest.approx(fresh, rel=0.4)


def test_unpaired_features_and_levels_are_refused():
    with pytest.raises(ValueError, match="same images"):
        paired_difference(samples(10), samples(11), REFERENCE)
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        paired_difference(samples(10), samples(10), REFERENCE, level=95)
