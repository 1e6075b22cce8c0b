"""The Frechet distance, and how far one of N samples can be trusted: its bias, and what each sample adds to its error.

The distance of N samples exceeds that of infinitely many by about c / N (Chong and Forsyth, 1911.07023), and with d
features by a series in d / N. So it is computed on parts of the samples too and extrapolated to 1/N = 0.
"""

from __future__ import annotations

import numpy as np

from fastsample.results.statistics import Estimate

__all__ = [
    "extrapolate",
    "features_distance",
    "frechet_distance",
    "influence",
    "symmetric_root",
    "too_few",
]

Reference = tuple[np.ndarray, np.ndarray]  # mean [d] and symmetric root of the covariance [d, d]

_FEWEST = 20  # samples for each feature: an eighth of them is then two and a half for each

# Partitions of 16 blocks into 1, 2, 4 and 8 parts, each by masks: block k is in the part that the parities of its bits
# under the masks name. Over the partitions into 2 and into 4 any two blocks are together equally often, so that
# nothing depends on which are, to second order; the share of the eighths in the value is too small to matter.
_PARTITIONS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((),), tuple((mask,) for mask in range(1, 16)), ((1, 2), (4, 8), (5, 10), (6, 11), (7, 9)), ((1, 2, 4),),
)  # fmt: skip
# Of the mean distances at N, N/2, N/4 and N/8 samples in the value of the cubic through them at 1/N = 0.
_WEIGHTS = (64 / 21, -8 / 3, 2 / 3, -1 / 21)


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, root2: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) in float64, given the symmetric root of S2.

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric matrix
    S2^(1/2) S1 S2^(1/2): real, stable at rank deficiency, and ten times faster than a general root.

    Args:
        mu1, mu2: [d]; sigma1: [d, d]; root2: [d, d] with root2 @ root2 = S2.
    """
    spectrum = np.linalg.eigvalsh(root2 @ sigma1 @ root2)
    trace = np.trace(sigma1) + np.sum(root2 * root2) - 2 * np.sqrt(np.clip(spectrum, 0, None)).sum()
    return float(np.sum((mu1 - mu2) ** 2) + trace)


def symmetric_root(sigma: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance [d, d]; eigenvalues below 0 by rounding count as 0."""
    values, vectors = np.linalg.eigh(sigma)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def features_distance(features: np.ndarray, reference: tuple[np.ndarray, np.ndarray]) -> float:
    """Frechet distance of features [n, d] to (mu, symmetric root of sigma) of the reference set.

    Of few samples tr (S1 S2)^(1/2) is the sum of the singular values of their centred features times the root: the
    square roots of d - n eigenvalues that are zero but for rounding, 1e-5 of a distance, are not in it.
    """
    wide, (mu, root) = features.astype(np.float64, copy=False), reference
    centre = wide.mean(0)
    if not _few(wide):
        return frechet_distance(centre, np.atleast_2d(np.cov(wide, rowvar=False)), mu, root)
    factor = (wide - centre) / np.sqrt(len(wide) - 1)
    cross = np.linalg.svd(factor @ root, compute_uv=False).sum()
    return float(np.sum((centre - mu) ** 2) + np.sum(factor * factor) + np.sum(root * root) - 2 * cross)


def _few(features: np.ndarray) -> bool:
    """Whether the covariance of features [n, d] has a rank so far below d that a factor of it is cheaper."""
    return 16 * len(features) <= features.shape[1]


def extrapolate(features: np.ndarray, reference: Reference, *, seed: int = 0) -> Estimate:
    """The distance at 1/N = 0, with the effect of each sample on it.

    It is the value at 0 of the cubic in 1/n through the mean distances of all samples and of their halves, quarters
    and eighths. To first order each of these means over parts is the same mean of influences, so those of all samples
    are the value's too.

    Near zero the variance of the distance grows with the distance, and an estimate that is too low has too small an
    error. So the variance is that of a distance which is larger by the standard error; far from zero it is the same.

    Args:
        features: [N, d] of the samples.
        reference: (mu, symmetric root of sigma) of the reference set.
        seed: of the order of the samples.

    Raises:
        ValueError: with fewer than 20 d samples.
    """
    count, d = features.shape
    if reason := too_few(count, d):
        raise ValueError(reason)
    wide = features.astype(np.float64)
    centre = wide.mean(0)
    order = np.random.default_rng(seed).permutation(count)
    blocks = [wide[part] - centre for part in np.array_split(order, 16)]
    sizes = np.array([len(block) for block in blocks])
    sums, squares = (np.stack([make(block) for block in blocks]) for make in (lambda x: x.sum(0), lambda x: x.T @ x))
    root = reference[1]

    def distance(chosen: np.ndarray) -> float:
        n = sizes[chosen].sum()
        mu = sums[chosen].sum(0) / n
        sigma = (squares[chosen].sum(0) - n * np.outer(mu, mu)) / (n - 1)
        return frechet_distance(mu + centre, sigma, reference[0], root)

    means = [float(np.mean([distance(part) for masks in several for part in _parts(masks)])) for several in _PARTITIONS]
    psi = influence(wide, reference)
    estimate = Estimate(float(np.dot(_WEIGHTS, means)), (psi,))
    if error := estimate.standard_error:
        psi = psi * np.sqrt(1 + np.mean(psi[0] ** 2) / means[0] / (count * error))
    return Estimate(estimate.value, (psi,))


def _parts(masks: tuple[int, ...]) -> list[np.ndarray]:
    """The blocks of each part of a partition."""
    names = [tuple((block & mask).bit_count() % 2 for mask in masks) for block in range(16)]
    return [np.array([block for block in range(16) if names[block] == name]) for name in sorted(set(names))]


def too_few(count: int, d: int) -> str:
    """Why the series of the bias in 1/N cannot be cut for `count` samples in d features; "" if it can."""
    needed = _FEWEST * d
    return f"an extrapolation in {d} features needs at least {needed} samples, not {count}" if count < needed else ""


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
    centred, to_mean = features - features.mean(0), features.mean(0) - mu_r
    if _few(features):  # the map is root @ rows.T @ diag(1 / values) @ rows @ root
        _, values, rows = np.linalg.svd(centred @ root / np.sqrt(len(features)), full_matrices=False)
        inverse = 1 / np.where(values > 1e-5 * values[0], values, np.inf)
        mapped = np.sum((centred @ root @ rows.T) ** 2 * inverse, axis=1)
        effect = 2 * centred @ to_mean + np.sum(centred * centred, axis=1) - mapped
    else:
        values, vectors = np.linalg.eigh(root @ (centred.T @ centred / len(features)) @ root)
        inverse = np.where(values > 1e-10 * values[-1], values, np.inf) ** -0.5
        half = root @ vectors
        gradient = np.eye(len(mu_r)) - (half * inverse) @ half.T
        effect = 2 * centred @ to_mean + np.einsum("nd,nd->n", centred @ gradient, centred)
    return np.asarray(effect - effect.mean())
