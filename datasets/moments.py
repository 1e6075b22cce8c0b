"""Reference statistics: mean and covariance of a data set's features, with what they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastsample.datasets.archives import read_arrays
from fastsample.datasets.files import write_atomically

__all__ = ["MOST_FEATURES", "FeatureMoments", "ReferenceError", "ReferenceStats", "check_moments", "shipped_reference"]

MOST_FEATURES = 3072  # Inception-v3 has 2048; the checks take d^3 steps
_TEXTS = ("extractor", "extractor_sha256", "dataset", "split")
_SHIPPED = Path(__file__).parent / "reference"


class ReferenceError(ValueError):
    """A file of reference statistics is missing, damaged or inconsistent."""


@dataclass(frozen=True)
class ReferenceStats:
    """Moments of the features of one data set under one extractor.

    Attributes:
        mu: float64 [d], mean.
        sigma: float64 [d, d], covariance with divisor n - 1, exactly symmetric.
        n: number of images.
        extractor, extractor_sha256: name of the feature extractor and hash of its weights.
        dataset, split: what the images were.

    Raises:
        ReferenceError: when mu or sigma has the wrong shape, is not finite, or sigma is asymmetric or
            has an eigenvalue below -1e-3 of its largest.
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int
    extractor: str
    extractor_sha256: str
    dataset: str
    split: str

    def __post_init__(self) -> None:
        told = f"statistics of {self.dataset} {self.split} under {self.extractor}"
        check_moments(self.mu, self.sigma, told)
        if self.n < 2:
            raise ReferenceError(f"{told}: {self.n} images have no covariance")

    @property
    def name(self) -> str:
        """`<dataset>-<split>@<extractor>`."""
        return f"{self.dataset}-{self.split}@{self.extractor}"

    def save(self, path: str | Path) -> None:
        """Write an npz: mu float64, the lower triangle of sigma float32 (relative error 6e-8), and the texts."""
        arrays: dict[str, Any] = dict(
            mu=self.mu, sigma_lower=self.sigma[np.tril_indices(len(self.mu))].astype(np.float32), n=np.int64(self.n),
            **{text: np.str_(getattr(self, text)) for text in _TEXTS},
        )  # fmt: skip
        write_atomically(Path(path), lambda stream: np.savez_compressed(stream, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of `save`.

        Raises:
            ReferenceError: when the file is missing, not such an archive, or fails the checks of the class.
        """
        try:
            arrays = read_arrays(path, ("mu", "sigma_lower", "n", *_TEXTS))
            mu, lower, n = arrays["mu"], arrays["sigma_lower"], int(arrays["n"])
            texts = {text: str(arrays[text]) for text in _TEXTS}
        except (OSError, ValueError, TypeError) as error:
            raise ReferenceError(f"{path} is not a file of reference statistics: {error}") from error
        d = mu.size
        if mu.ndim != 1 or lower.shape != (d * (d + 1) // 2,):
            raise ReferenceError(f"{path}: mu {mu.shape} and the triangle of sigma {lower.shape} do not fit together")
        if d > MOST_FEATURES:
            raise ReferenceError(f"{path}: {d:,} features; at most {MOST_FEATURES:,} are read")
        sigma = np.zeros((d, d))
        sigma[np.tril_indices(d)] = lower
        sigma += np.tril(sigma, -1).T
        return cls(mu=mu.astype(np.float64), sigma=sigma, n=n, **texts)


def shipped_reference(name: str) -> ReferenceStats:
    """Statistics that come with the package, e.g. "cifar10-jpeg-train@cifar10-resnet".

    Raises:
        ReferenceError: for an unknown name; the message lists the known ones.
    """
    shipped = {file.stem: file for file in sorted(_SHIPPED.glob("*.npz"))}
    if name not in shipped:
        known = ", ".join(shipped) or "none"
        absent = FileNotFoundError(name)
        raise ReferenceError(f"no reference statistics {name!r} come with the package; known: {known}") from absent
    return ReferenceStats.load(shipped[name])


def check_moments(mu: NDArray[np.float64], sigma: NDArray[np.float64], told: str) -> None:
    """Raise a ReferenceError, with `told` for what they are, unless these can be a mean [d] and a covariance [d, d]."""
    if mu.ndim != 1 or sigma.shape != (len(mu),) * 2 or not len(mu):
        raise ReferenceError(f"{told}: mu is {mu.shape} and sigma {sigma.shape}; want [d] and [d, d]")
    if len(mu) > MOST_FEATURES:
        raise ReferenceError(f"{told}: {len(mu):,} features; at most {MOST_FEATURES:,} are read")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ReferenceError(f"{told}: a value is not finite")
    if np.abs(sigma - sigma.T).max() > 1e-6 * np.abs(sigma).max():
        raise ReferenceError(f"{told}: sigma is not symmetric")
    eigenvalues = np.linalg.eigvalsh(sigma)
    if eigenvalues[0] < -1e-3 * eigenvalues[-1]:
        raise ReferenceError(f"{told}: sigma is not a covariance, it has the eigenvalue {eigenvalues[0]:.3g}")


class FeatureMoments:
    """Streaming count, sum and sum of outer products of features, in float64.

    Accumulators of disjoint parts merge into that of the whole, up to the rounding of float64, so
    shards and resumption cost nothing. Sums are taken about `shift`, which should be near the mean:
    without it the covariance would lose digits to the mean's square.

    Args:
        dim: number of features.
        shift: float64 [dim]; accumulators merge only when theirs are equal. Zero by default.
    """

    def __init__(self, dim: int, shift: NDArray[np.float64] | None = None) -> None:
        self.n = 0
        self.shift = np.zeros(dim) if shift is None else np.asarray(shift, np.float64)
        self.total = np.zeros(dim)
        self.outer = np.zeros((dim, dim))

    def add(self, features: NDArray[np.floating]) -> None:
        """Take in features [batch, dim].

        Raises:
            ValueError: when the shape is another one.
        """
        if features.ndim != 2 or features.shape[1] != len(self.total):
            raise ValueError(f"features are {features.shape}, not [batch, {len(self.total)}]")
        x = features.astype(np.float64) - self.shift
        self.n += len(x)
        self.total += x.sum(axis=0)
        self.outer += x.T @ x

    def merge(self, other: FeatureMoments) -> None:
        """Take in all that `other` has seen.

        Raises:
            ValueError: when the two count in different dimensions or about different shifts.
        """
        if not np.array_equal(self.shift, other.shift):
            raise ValueError("accumulators with different dimensions or shifts cannot be merged")
        self.n += other.n
        self.total += other.total
        self.outer += other.outer

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean [dim], covariance [dim, dim] with divisor n - 1).

        Raises:
            ValueError: with fewer than two samples.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs two samples or more, not {self.n}")
        mean = self.total / self.n
        sigma = (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)
        return mean + self.shift, (sigma + sigma.T) / 2
