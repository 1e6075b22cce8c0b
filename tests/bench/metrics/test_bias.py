"""The bias of a Frechet distance, its extrapolation and its error, on Gaussians with a known distance."""

import numpy as np
import pytest

from fastsample.bench.metrics.frechet import (
    _PARTITIONS,
    _parts,
    extrapolate,
    features_distance,
    frechet_distance,
    influence,
)
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


@pytest.mark.parametrize("spectrum", ["flat", "1/k"])
@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.05, 1.0), (0.5, 1.2)])
def test_the_intervals_of_the_extrapolation_cover(spectrum, shift, stretch):
    """At distance zero, near it and away from it, from the fewest samples allowed.

    Where the fit is linear in 1/n and begins at 2 d samples, the mean at zero is 0.7 standard deviations too low.
    """
    scales, trials, found = np.ones(D) if spectrum == "flat" else 1 / np.sqrt(np.arange(1, D + 1)), 120, []
    truth = np.sum((shift * scales) ** 2) + np.sum(((stretch - 1) * scales) ** 2)
    for trial in range(trials):
        z = np.random.default_rng((7, trial)).standard_normal((20 * D, D))
        estimate = extrapolate(scales * (shift + stretch * z), (np.zeros(D), np.diag(scales)), seed=trial)
        found.append(estimate.interval())
    values = np.array([one.value for one in found])
    assert abs(values.mean() - truth) < 0.25 * values.std()
    assert 0.92 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99


def test_the_error_is_no_larger_than_a_distance_near_zero_needs():
    """That of the best estimate of a squared norm from n samples, sqrt(2 V2) / n, and not more than a fifth above."""
    found = [extrapolate(samples(20 * D, seed=seed), REFERENCE) for seed in range(100)]
    spread = np.std([one.value for one in found], ddof=1)
    assert 0.95 < np.mean([one.standard_error for one in found]) / spread < 1.3
    assert spread < 1.1 * np.std([features_distance(samples(20 * D, seed=seed), REFERENCE) for seed in range(100)])


def test_the_blocks_are_together_equally_often():
    for partitions, together in zip(_PARTITIONS[1:3], (7, 1), strict=True):
        counts = np.zeros((16, 16), int)
        for masks in partitions:
            for part in _parts(masks):
                counts[np.ix_(part, part)] += 1
        assert set(counts[~np.eye(16, dtype=bool)]) == {together}
    assert [len(_parts(masks[0])) for masks in _PARTITIONS] == [1, 2, 4, 8]


def test_the_bias_falls_with_the_number_of_samples():
    features = samples(50_000, 0.02)
    few, many = (features_distance(features[:count], REFERENCE) for count in (5_000, 50_000))
    found = extrapolate(features, REFERENCE)
    assert few > many > found.value
    assert found.value == pytest.approx(distance(0.02, 1), abs=3 * found.standard_error)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 320 samples, not 319"):
        extrapolate(samples(319), REFERENCE)


@pytest.mark.parametrize("count", [400, 8])
def test_the_influence_is_the_derivative(count):
    features = samples(count, 0.1, 1.3)

    def weighted(weights):
        weights = weights / weights.sum()
        mu = weights @ features
        centred = features - mu
        return frechet_distance(mu, (weights[:, None] * centred).T @ centred, *REFERENCE)

    psi = influence(features, REFERENCE)
    for n in (0, count // 3, count - 1):
        up, down = np.ones(count), np.ones(count)
        up[n], down[n] = 1.01, 0.99
        assert (weighted(up) - weighted(down)) / 0.02 * count == pytest.approx(psi[0, n], rel=1e-2, abs=1e-3)
    np.testing.assert_allclose(psi[1, 1::2], influence(features[1::2], REFERENCE)[0])


def test_few_samples_in_many_features_have_a_distance_to_all_digits():
    """The square roots of eigenvalues that are zero but for rounding would be 1e-5 of this one."""
    rng = np.random.default_rng(0)
    few, many = (scale * rng.standard_normal((count, 512)) for scale, count in ((1.0, 8), (1.05, 12)))
    many[:8] = 1.05 * few
    mu, factor = many.mean(0), (many - many.mean(0)) / np.sqrt(11)
    _, values, rows = np.linalg.svd(factor, full_matrices=False)
    found = features_distance(few, (mu, (rows.T * values) @ rows))
    own = (few - few.mean(0)) / np.sqrt(7)
    cross = np.linalg.svd(own @ factor.T, compute_uv=False).sum()
    exact = np.sum((few.mean(0) - mu) ** 2) + np.sum(own**2) + np.sum(factor**2) - 2 * cross
    assert found == pytest.approx(exact, rel=1e-12)


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
