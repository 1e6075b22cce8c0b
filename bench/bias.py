"""How far a Frechet distance of N samples can be trusted: its bias, and what each sample adds to its error.

The distance of N samples exceeds that of infinitely many by about c / N (Chong and Forsyth, 1911.07023). So it is
computed on subsets of several sizes and extrapolated to 1/N = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastsample.bench.metrics import features_distance
from fastsample.results.statistics import Estimate

__all__ = ["Extrapolation", "TooFewSamples", "check_count", "extrapolate", "influence"]

Reference = tuple[np.ndarray, np.ndarray]  # mean [d] and symmetric root of the covariance [d, d]


class TooFewSamples(ValueError):  # noqa: N818 - it is a state of the request, not a fault
    """The 1/N law of the bias does not hold yet."""


@dataclass(frozen=True)
class Extrapolation:
    """A Frechet distance at 1/N = 0.

    Attributes:
        estimate: the intercept, with the effect of each sample on it.
        slope: c of the bias c / N.
        sizes, distances: the points of the fit, subset by subset.
    """

    estimate: Estimate
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
    sum of distances, and each distance is to first order the mean over its subset of an influence per sample. Hence
    sample i has the influence N w_i psi_i, with w_i its share in that sum; all are scaled so that the variance is
    that of these influences and that of the fit together.

    Args:
        features: [N, d] of the samples.
        reference: (mu, symmetric root of sigma) of the reference set.

    Raises:
        TooFewSamples: with fewer than 3 d samples.
    """
    count, d = features.shape
    check_count(count, d)
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
    psi = count * weights * influence(wide, reference)
    psi -= psi.mean(1, keepdims=True)
    sampling = Estimate(float(value), (psi,)).standard_error ** 2
    psi *= np.sqrt(1 + scatter / sampling) if sampling else 1
    return Extrapolation(Estimate(float(value), (psi,)), float(slope), n, distances)


def check_count(count: int, d: int) -> None:
    """Raise `TooFewSamples` unless `count` samples are enough for an extrapolation in d features."""
    if count < 3 * d:
        raise TooFewSamples(f"an extrapolation in {d} features needs at least {3 * d} samples, not {count}")


def influence(features: np.ndarray, reference: Reference) -> np.ndarray:
    """First-order effect of each sample on the distance, for `results.statistics.Estimate`.

    Args:
        features: [N, d].
        reference: (mu, symmetric root of sigma) of the reference set.

    Returns:
        float64 [2, N], of mean zero: as all samples tell it, and as those with an even and those with an odd
        number do.
    """
    wide = features.astype(np.float64, copy=False)
    halves = np.empty(len(wide))
    for half in (slice(0, None, 2), slice(1, None, 2)):
        halves[half] = _gradient(wide[half], reference)
    return np.stack([_gradient(wide, reference), halves])


def _gradient(features: np.ndarray, reference: Reference) -> np.ndarray:
    """The derivative of the distance by the weight of each sample, [N].

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
