"""How far a Frechet distance of N samples can be trusted: its bias, and the interval of a difference.

The distance of N samples exceeds that of infinitely many by about c / N (Chong and Forsyth, 1911.07023). So it is
computed on subsets of several sizes and extrapolated to 1/N = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastsample.bench.metrics import features_distance

__all__ = ["Extrapolation", "Interval", "bootstrap_spread", "extrapolate", "paired_difference"]

Reference = tuple[np.ndarray, np.ndarray]  # mean [d] and symmetric root of the covariance [d, d]


@dataclass(frozen=True)
class Extrapolation:
    """A Frechet distance at 1/N = 0.

    Attributes:
        value: the intercept.
        standard_error: of the intercept.
        slope: c of the bias c / N.
        sizes, distances: the points of the fit, subset by subset.
    """

    value: float
    standard_error: float
    slope: float
    sizes: np.ndarray
    distances: np.ndarray


def extrapolate(
    features: np.ndarray, reference: Reference, *, sizes: int = 10, repeats: int = 3, seed: int = 0
) -> Extrapolation:
    """Fit distance = value + slope / n, weighted by n, to random subsets of the samples.

    The sizes are evenly spaced from N / 10 (5,000 of 50,000), or 2 d where that is more, to N: with fewer samples
    than features the bias is no longer c / n.

    The subsets overlap, so the scatter about the fit tells only a part of the error. The intercept is a weighted
    sum of distances, and each distance is to first order the mean over its subset of an influence per sample; the
    standard error adds the variance of the weighted influences to that of the fit.

    Args:
        features: [N, d] of the samples.
        reference: (mu, symmetric root of sigma) of the reference set.

    Raises:
        ValueError: with fewer than 3 d samples.
    """
    count, d = features.shape
    if count < 3 * d:
        raise ValueError(f"an extrapolation in {d} features needs at least {3 * d} samples, not {count}")
    wide, rng = features.astype(np.float64), np.random.default_rng(seed)
    # The whole set is there only once.
    steps = np.linspace(max(count // 10, 2 * d), count, sizes).astype(int)
    n = np.array([size for size in steps for _ in range(repeats if size < count else 1)])
    subsets = [rng.choice(count, size, replace=False) for size in n]
    distances = np.array([features_distance(wide[subset], reference) for subset in subsets])
    design = np.stack([np.ones(len(n)), 1 / n], axis=1)
    normal = np.linalg.inv(design.T @ (n[:, None] * design))
    fit = normal @ (n[:, None] * design).T  # [2, subsets]: (value, slope) = fit @ distances
    value, slope = fit @ distances
    scatter = np.sum(n * (distances - design @ (value, slope)) ** 2) / (len(n) - 2) * normal[0, 0]
    weights = np.zeros(count)
    for subset, share in zip(subsets, fit[0] / n, strict=True):
        weights[subset] += share
    sampling = np.sum((weights * _influence(wide, reference)) ** 2)
    return Extrapolation(float(value), float(np.sqrt(scatter + sampling)), float(slope), n, distances)


def _influence(features: np.ndarray, reference: Reference) -> np.ndarray:
    """First-order effect of each sample on the distance, [N], of mean 0.

    The gradient of the distance is 2 (mu - mu_r) in the mean, and in the covariance S the identity less the
    optimal transport map R (R S R)^(-1/2) R, where R is the reference's root.
    """
    mu_r, root = reference
    centred = features - features.mean(0)
    values, vectors = np.linalg.eigh(root @ (centred.T @ centred / len(features)) @ root)
    inverse = np.where(values > 1e-10 * values[-1], values, np.inf) ** -0.5
    half = root @ vectors
    gradient = np.eye(len(mu_r)) - (half * inverse) @ half.T
    effect = 2 * centred @ (features.mean(0) - mu_r) + np.einsum("nd,nd->n", centred @ gradient, centred)
    return np.asarray(effect - effect.mean())


@dataclass(frozen=True)
class Interval:
    """A difference of two distances: its value, bootstrap interval and standard deviation."""

    value: float
    low: float
    high: float
    spread: float


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    reference: Reference,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Distance of the first samples less that of the second, with a percentile interval.

    Row i of both has to come from the same noise: images are resampled in pairs. A resample holds duplicates, so
    each distance is biased upwards; in the difference the bias cancels as far as the two are alike.

    Args:
        first, second: features [N, d].
        reference: (mu, symmetric root of sigma) of the reference set.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: when the two are not paired, or the level is not in (0, 1).
    """
    if first.shape != second.shape:
        raise ValueError(f"features of the same images are needed, not {first.shape} and {second.shape}")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval is in (0, 1), not {level}")
    first, second, rng = first.astype(np.float64), second.astype(np.float64), np.random.default_rng(seed)

    def difference(rows: np.ndarray | slice) -> float:
        return features_distance(first[rows], reference) - features_distance(second[rows], reference)

    draws = np.array([difference(rng.integers(len(first), size=len(first))) for _ in range(resamples)])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(difference(slice(None)), float(low), float(high), float(draws.std(ddof=1)))


def bootstrap_spread(features: np.ndarray, reference: Reference, *, resamples: int = 200, seed: int = 0) -> float:
    """Standard deviation of the distance over resamples of the images; their mean is biased, and is not given."""
    wide, rng = features.astype(np.float64), np.random.default_rng(seed)
    rows = (rng.integers(len(wide), size=len(wide)) for _ in range(resamples))
    return float(np.std([features_distance(wide[row], reference) for row in rows], ddof=1))
