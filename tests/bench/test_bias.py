"""The bias of a Frechet distance, its extrapolation and its error, on Gaussians with a known distance."""

import numpy as np
import pytest

from fastsample.bench.bias import TooFewSamples, extrapolate, influence
from fastsample.bench.metrics import features_distance, frechet_distance
from fastsample.results.statistics import Estimate

D = 16
SCALES = np.linspace(0.5, 1.5, D)
REFERENCE = np.zeros(D), np.diag(SCALES)


def samples(count, shift=0.0, stretch=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return shift + stretch * SCALES * rng.standard_normal((count, D))


def distance(shift, stretch):
    return D * shift**2 + np.sum(((stretch - 1) * SCALES) ** 2)


def estimate(features):
    return Estimate(features_distance(features, REFERENCE), (influence(features, REFERENCE),))


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.05, 1.0), (0.1, 1.2)])
def test_the_intercept_is_the_distance_within_its_error(shift, stretch):
    pulls = []
    for seed in range(12):
        found = extrapolate(samples(4000, shift, stretch, seed), REFERENCE, seed=seed)
        pulls.append((found.estimate.value - distance(shift, stretch)) / found.estimate.standard_error)
        assert found.slope > 0
    assert np.abs(pulls).max() < 3
    assert np.abs(np.mean(pulls)) < 1.2
    assert 0.4 < np.std(pulls) < 1.6  # the error is neither too large nor too small


def test_the_bias_falls_with_the_number_of_samples():
    features = samples(50_000, 0.02)
    few, many = (features_distance(features[:count], REFERENCE) for count in (5_000, 50_000))
    found = extrapolate(features, REFERENCE)
    assert few > many > found.estimate.value
    assert found.estimate.value == pytest.approx(distance(0.02, 1), abs=3 * found.estimate.standard_error)
    assert found.slope == pytest.approx((few - many) * 50_000 / 9, rel=0.3)
    assert (found.sizes.min(), found.sizes.max(), len(found.sizes)) == (5_000, 50_000, 28)


def test_too_few_samples_are_refused():
    with pytest.raises(TooFewSamples, match="at least 48 samples, not 40"):
        extrapolate(samples(40), REFERENCE)


def test_the_influence_is_the_derivative():
    features, count = samples(400, 0.1, 1.3), 400

    def weighted(weights):
        weights = weights / weights.sum()
        mu = weights @ features
        centred = features - mu
        return frechet_distance(mu, (weights[:, None] * centred).T @ centred, *REFERENCE)

    psi = influence(features, REFERENCE)
    for n in (0, 17, 399):
        up, down = np.ones(count), np.ones(count)
        up[n], down[n] = 1.01, 0.99
        assert (weighted(up) - weighted(down)) / 0.02 * count == pytest.approx(psi[0, n], rel=1e-2, abs=1e-3)
    np.testing.assert_allclose(psi[1, 1::2], influence(features[1::2], REFERENCE)[0])


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.3)])
def test_the_standard_error_is_the_spread_of_fresh_samples(shift, stretch):
    """Also at the minimum of the distance, where its first-order error vanishes."""
    found = [estimate(samples(300, shift, stretch, seed)) for seed in range(300)]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.sqrt(np.mean([one.standard_error**2 for one in found])) == pytest.approx(spread, rel=0.2)


def test_a_paired_difference_is_sharper_than_its_parts():
    features = samples(2000, 0.1)
    first, second = estimate(features), estimate(features + 0.02)
    paired, unpaired = (first.minus(second, paired=paired) for paired in (True, False))
    assert paired.value == unpaired.value == first.value - second.value
    assert paired.interval().low < distance(0.1, 1) - distance(0.12, 1) < paired.interval().high < 0
    assert paired.standard_error < 0.2 * unpaired.standard_error
