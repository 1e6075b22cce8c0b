"""The Frechet distance, and how far one of N samples can be trusted: its bias, and what each sample adds to its error.

The distance of N samples exceeds that of infinitely many by about c / N (Chong and Forsyth, 1911.07023), and with d
features by a series in d / N. So it is computed on parts of the samples too and extrapolated to 1/N = 0.

Everything is in float64, by numpy, or by torch on the `device` that is given; features are widened block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

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

_BLOCK = 2**23  # values that are widened at a time, 64 MiB
_COLUMNS = 256  # of a product at a time
_FEWEST = 20  # samples for each feature: an eighth of them is then two and a half for each

# Partitions of 16 blocks into 1, 2, 4 and 8 parts, each by masks: block k is in the part that the parities of its bits
# under the masks name. Over the partitions into 2 and into 4 any two blocks are together equally often, so that
# nothing depends on which are, to second order; the share of the eighths in the value is too small to matter.
_PARTITIONS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((),), tuple((mask,) for mask in range(1, 16)), ((1, 2), (4, 8), (5, 10), (6, 11), (7, 9)), ((1, 2, 4),),
)  # fmt: skip
# Of the mean distances at N, N/2, N/4 and N/8 samples in the value of the cubic through them at 1/N = 0.
_WEIGHTS = (64 / 21, -8 / 3, 2 / 3, -1 / 21)


def frechet_distance(
    mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, root2: np.ndarray, device: torch.device | None = None
) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) in float64, given the symmetric root of S2.

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric matrix
    S2^(1/2) S1 S2^(1/2): real, stable at rank deficiency, and ten times faster than a general root.

    Args:
        mu1, mu2: [d]; sigma1: [d, d]; root2: [d, d] with root2 @ root2 = S2.
    """
    own, root = _wide(sigma1, device), _wide(root2, device)
    spectrum = _module(device).linalg.eigvalsh(_lower(root @ own, root)).clip(0, None)
    trace = own.trace() + (root * root).sum() - 2 * (spectrum**0.5).sum()
    return float(np.sum((mu1 - mu2) ** 2) + float(trace))


def symmetric_root(sigma: np.ndarray, device: torch.device | None = None) -> np.ndarray:
    """The symmetric square root of a covariance [d, d]; eigenvalues below 0 by rounding count as 0."""
    values, vectors = _module(device).linalg.eigh(_wide(sigma, device))
    return _narrow((vectors * values.clip(0, None) ** 0.5) @ vectors.T)


def features_distance(features: np.ndarray, reference: Reference, device: torch.device | None = None) -> float:
    """Frechet distance of features [n, d] to (mu, symmetric root of sigma) of the reference set.

    Of few samples tr (S1 S2)^(1/2) is the sum of the singular values of their centred features times the root: the
    square roots of d - n eigenvalues that are zero but for rounding, 1e-5 of a distance, are not in it.
    """
    mu, root = reference
    centre = _mean(features, device)
    if not _few(features):
        scatter = _scatter(features, centre, device)
        return frechet_distance(_narrow(centre), _narrow(scatter * (1 / (len(features) - 1))), mu, root, device)
    factor = (_wide(features, device) - centre) / (len(features) - 1) ** 0.5
    cross = _module(device).linalg.svd(factor @ _wide(root, device), full_matrices=False)[1].sum()
    return float(
        np.sum((_narrow(centre) - mu) ** 2) + float((factor * factor).sum()) + np.sum(root * root) - 2 * float(cross)
    )


def _lower(a: Any, b: Any) -> Any:
    """a @ b [d, d] where it is symmetric; of a large one the lower triangle alone, which is all that eigvalsh reads."""
    if len(a) <= 2 * _COLUMNS:
        return a @ b
    product = 0 * a
    for low in range(0, len(a), _COLUMNS):
        product[low:, low : low + _COLUMNS] = a[low:] @ b[:, low : low + _COLUMNS]
    return product


def _module(device: torch.device | None) -> Any:
    return np if device is None else torch


def _wide(values: np.ndarray, device: torch.device | None) -> Any:
    """The values in float64, where they are computed with."""
    if device is None:
        return values.astype(np.float64, copy=False)
    return torch.as_tensor(values).to(device, torch.float64)


def _narrow(values: Any) -> np.ndarray:
    """The same on the host."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.cpu())


def _blocks(features: np.ndarray, device: torch.device | None) -> Iterator[Any]:
    """Features [n, d] in float64, a block of rows at a time."""
    rows = max(1, _BLOCK // features.shape[1])
    for low in range(0, len(features), rows):
        yield _wide(features[low : low + rows], device)


def _mean(features: np.ndarray, device: torch.device | None) -> Any:
    """[d] of features [n, d]."""
    return sum(block.sum(0) for block in _blocks(features, device)) / len(features)


def _scatter(features: np.ndarray, mean: Any, device: torch.device | None) -> Any:
    """The sum of the squares [d, d] of features [n, d] about their mean [d]."""
    centred = (block - mean for block in _blocks(features, device))
    return sum(block.T @ block for block in centred)


def _few(features: np.ndarray) -> bool:
    """Whether the covariance of features [n, d] has a rank so far below d that a factor of it is cheaper."""
    return 16 * len(features) <= features.shape[1]


def extrapolate(
    features: np.ndarray, reference: Reference, *, seed: int = 0, device: torch.device | None = None
) -> Estimate:
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
    centre = _narrow(_mean(features, device))
    sizes, sums, squares = [], [], []
    for part in np.array_split(np.random.default_rng(seed).permutation(count), 16):
        block = _wide(features[part], device) - _wide(centre, device)
        sizes.append(len(part))
        sums.append(_narrow(block.sum(0)))
        squares.append(_narrow(block.T @ block))
    root = reference[1]

    def distance(chosen: np.ndarray) -> float:
        n = sum(sizes[k] for k in chosen)
        mu = sum(sums[k] for k in chosen) / n
        sigma = (sum(squares[k] for k in chosen) - n * np.outer(mu, mu)) / (n - 1)
        return frechet_distance(mu + centre, sigma, reference[0], root, device)

    means = [float(np.mean([distance(part) for masks in several for part in _parts(masks)])) for several in _PARTITIONS]
    psi = influence(features, reference, device)
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


def influence(features: np.ndarray, reference: Reference, device: torch.device | None = None) -> np.ndarray:
    """First-order effect of each sample on the distance, for `results.statistics.Estimate`.

    Args:
        features: [N, d].
        reference: (mu, symmetric root of sigma) of the reference set.

    Returns:
        float64 [2, N], of mean zero: as all samples tell it, and as those with an even and those with an odd
        number do.
    """
    mu, root = reference[0], _wide(reference[1], device)
    halves = np.empty(len(features))
    for half in (slice(0, None, 2), slice(1, None, 2)):
        halves[half] = _gradient(features[half], mu, root, device)
    return np.stack([_gradient(features, mu, root, device), halves])


def _gradient(features: np.ndarray, mu: np.ndarray, root: Any, device: torch.device | None) -> np.ndarray:
    """The derivative of the distance by the weight of each sample, [N].

    The gradient of the distance is 2 (mu - mu_r) in the mean, and in the covariance S the identity less the
    optimal transport map R (R S R)^(-1/2) R, where R is the reference's root.
    """
    library = _module(device)
    mean = _mean(features, device)
    to_mean = mean - _wide(mu, device)
    if _few(features):  # the map is root @ rows.T @ diag(1 / values) @ rows @ root
        centred = _wide(features, device) - mean
        _, values, rows = library.linalg.svd(centred @ root / len(features) ** 0.5, full_matrices=False)
        inverse = 1 / library.where(values > 1e-5 * values[0], values, np.inf)
        mapped = ((centred @ root @ rows.T) ** 2 * inverse).sum(1)
        effect = _narrow(2 * centred @ to_mean + (centred * centred).sum(1) - mapped)
    else:
        values, vectors = library.linalg.eigh(root @ (_scatter(features, mean, device) / len(features)) @ root)
        inverse = library.where(values > 1e-10 * values[-1], values, np.inf) ** -0.5
        half = root @ vectors
        gradient = _wide(np.eye(len(mu)), device) - (half * inverse) @ half.T
        centred_blocks = (block - mean for block in _blocks(features, device))
        effect = np.concatenate(
            [
                _narrow(2 * block @ to_mean + library.einsum("nd,nd->n", block @ gradient, block))
                for block in centred_blocks
            ]
        )
    return np.asarray(effect - effect.mean())
