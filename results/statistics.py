"""Numbers with their uncertainty.

To first order each number here is a mean over samples: psi_i, its influence, is the effect of sample i on it. For a
mean psi_i is the deviation from it; for a Frechet distance see `bench.metrics.frechet`. Solvers of one noise are
compared sample by sample: the difference of two numbers has the influence psi_i - psi'_i, in which what the samples
have in common cancels.

Where a number is not linear, psi is itself estimated, and its mean square is V1 + 2 V2 / n instead of V1 + V2 / n
(the bias of the jackknife; Efron and Stein, Ann. Statist. 9, 1981). Influences estimated in the halves of the samples
have V1 + 4 V2 / n, and 3/2 of the first less 1/2 of the second is right. Near its minimum, where most of the error of
a Frechet distance is V2, its interval would be 1.4 times too wide without that.

Intervals are studentised bootstrap intervals (Efron 1981; Hall, Ann. Statist. 16, 1988): the quantiles of t over
resamples of psi take the place of those of the normal distribution, so that skewed samples are covered on both sides.
All solvers are resampled with the same indices. Over several seeds an interval is no narrower than Student's t
between them, which covers whatever they have in common and is wide for two; a test of a difference takes Student's t
with the degrees of freedom of Welch and Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

__all__ = [
    "FEWEST",
    "Estimate",
    "Interval",
    "difference",
    "holm",
    "mean_interval",
    "mean_of",
    "paired_interval",
    "pool",
    "ratio_of_means",
    "root_of_mean",
]

FEWEST = 8  # samples that an interval needs
_RESAMPLES = 2000
_BLOCKS = 1000


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """Whether the number differs from zero at this level."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Estimate:
    """A number and the effect of each sample on it.

    Attributes:
        value: the number.
        parts: the influences of each independent set of samples, float64, with mean zero: [1, n], or [2, n] where
            the second line was estimated in the halves of the set.
        seeds: what the spread of whole seeds says of the number: (variance, degrees of freedom) of each independent
            group of them; () for a single seed.
    """

    value: float
    parts: tuple[np.ndarray, ...]
    seeds: tuple[tuple[float, float], ...] = ()

    @property
    def samples(self) -> int:
        """Samples in the smallest set."""
        return min(part.shape[1] for part in self.parts)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the number over fresh samples; infinite for a set of one sample."""
        return self._error[0]

    @property
    def _error(self) -> tuple[float, float]:
        """Standard error and degrees of freedom, where what seeds show beyond their samples has those of the seeds."""
        (error, degrees), *seeds = self._errors
        extra = [(spread**2 - error**2, few) for spread, few in seeds if spread > error]
        return _welch([(error**2, degrees), *extra])

    @property
    def _errors(self) -> list[tuple[float, float]]:
        """(standard error, degrees of freedom) from the samples, and from the seeds where there are several."""
        samples = [(_variance_of_mean(_corrected(part)), part.shape[1] - 1.0) for part in self.parts]
        return [_welch(terms) for terms in (samples, self.seeds) if terms]

    def interval(self, level: float = 0.95) -> Interval:
        """Studentised bootstrap interval; over several seeds no narrower than that of Student's t between them.

        Raises:
            ValueError: with fewer than `FEWEST` samples, or a level outside (0, 1).
        """
        if self.samples < FEWEST:
            raise ValueError(f"an interval needs at least {FEWEST} samples, not {self.samples}")
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval is in (0, 1), not {level}")
        error, _ = self._errors[0]
        means, variances = np.zeros(_RESAMPLES), np.zeros(_RESAMPLES)
        for index, part in enumerate(self.parts if error else ()):
            psi = _blocks(_corrected(part)) / error
            mean, square = (_resamples(len(psi), index) @ np.stack([psi, psi**2], axis=1, dtype=np.float32)).T
            means += mean
            variances += (square - mean**2) / (len(psi) - 1)
        t = np.divide(means, np.sqrt(variances.clip(0)), out=np.zeros_like(means), where=variances > 0)
        low, high = self.value - error * np.quantile(t, [(1 + level) / 2, (1 - level) / 2])
        for spread, degrees in self._errors[1:]:
            half = spread * stdtrit(degrees, (1 + level) / 2)
            low, high = min(low, self.value - half), max(high, self.value + half)
        return Interval(self.value, float(low), float(high), level)

    def minus(self, other: Estimate, *, paired: bool) -> Estimate:
        """The difference; `paired` where sample i of both comes from the same noise.

        Raises:
            ValueError: for a pair of unequal numbers of samples.
        """
        value = self.value - other.value
        if not paired:
            seeds = (*self._groups, *other._groups) if self.seeds or other.seeds else ()
            return Estimate(value, (*self.parts, *(-part for part in other.parts)), seeds)
        if [part.shape for part in self.parts] != [part.shape for part in other.parts]:
            raise ValueError("samples can be paired only where there are as many of both")
        return Estimate(value, tuple(one - two for one, two in zip(self.parts, other.parts, strict=True)))

    @property
    def _groups(self) -> tuple[tuple[float, float], ...]:
        """`seeds`; of a single seed what its samples say, which is all there is."""
        error, degrees = self._errors[0]
        return self.seeds or ((error**2, degrees),)

    def p_above(self, margin: float = 0.0) -> float:
        """One-sided p value of "the number is at most `margin`", by Student's t: small where it is clearly above."""
        (error, degrees), excess = self._error, self.value - margin
        return float(stdtr(degrees, -excess / error)) if error else float(excess <= 0)

    def reach(self, p: float) -> float:
        """How far above a margin the number is where `p_above` gives p, for p < 1/2."""
        error, degrees = self._error
        return error * float(stdtrit(degrees, 1 - p))


def mean_of(values: np.ndarray) -> Estimate:
    """The mean of values [n]."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    return Estimate(mean, ((values - mean)[None],))


def root_of_mean(values: np.ndarray) -> Estimate:
    """The root of the mean of values [n] >= 0, such as square errors; its influences are those of the mean / 2 root."""
    mean = mean_of(values)
    root = math.sqrt(mean.value)
    return Estimate(root, tuple(part / (2 * root) if root else part for part in mean.parts))


def ratio_of_means(first: np.ndarray, second: np.ndarray) -> Estimate:
    """mean(first) / mean(second) of values [n] of the same samples.

    By the delta method psi_i = (first_i - ratio second_i) / mean(second).
    """
    below = float(np.mean(second))
    ratio = float(np.mean(first)) / below
    return Estimate(ratio, mean_of((first - ratio * second) / below).parts)


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of one number over several seeds, each a set of fresh samples.

    Its error is that within the seeds, or that seen between them where it is larger: what changes from seed to seed
    alone cannot be seen within one, and few seeds tell little of it (Student's t with their number less one).
    """
    count = len(estimates)
    values = np.array([one.value for one in estimates])
    parts = tuple(part / count for one in estimates for part in one.parts)
    return Estimate(float(values.mean()), parts, ((values.var(ddof=1) / count, count - 1),) if count > 1 else ())


def difference(first: Mapping[int, Estimate], second: Mapping[int, Estimate]) -> Estimate:
    """First minus second of numbers by seed: where the seeds are the same, seed by seed and sample by sample."""
    if first.keys() == second.keys():
        return pool([one.minus(second[seed], paired=True) for seed, one in first.items()])
    return pool(list(first.values())).minus(pool(list(second.values())), paired=False)


def mean_interval(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """Interval of the mean of per-sample values [n].

    Raises:
        ValueError: with fewer than `FEWEST` samples, or a level outside (0, 1).
    """
    return mean_of(values).interval(level)


def paired_interval(first: np.ndarray, second: np.ndarray, *, level: float = 0.95) -> Interval:
    """Interval of mean(first - second) of values [n] of the same noise.

    Raises:
        ValueError: as `mean_interval`, and where the two have different shapes.
    """
    return mean_of(first).minus(mean_of(second), paired=True).interval(level)


def holm(p_values: Sequence[float], level: float = 0.01) -> list[bool]:
    """Which hypotheses are rejected when the chance of even one false rejection is `level` (Holm 1979)."""
    rejected = [False] * len(p_values)
    for done, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - done):
            break
        rejected[index] = True
    return rejected


def _corrected(part: np.ndarray) -> np.ndarray:
    """Influences [n] of the right mean square; V1 + V2 / n lies between a half and the whole of V1 + 2 V2 / n."""
    whole, halves = part[0], part[-1]
    square = float(whole @ whole)
    return whole * math.sqrt(min(max(1.5 - 0.5 * float(halves @ halves) / square, 0.5), 1.0)) if square else whole


def _welch(terms: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of (variance, degrees of freedom), after Welch, Satterthwaite."""
    total = sum(variance for variance, _ in terms)
    if not 0 < total < math.inf:
        return math.sqrt(total), min(degrees for _, degrees in terms)
    return math.sqrt(total), total**2 / sum(variance**2 / degrees for variance, degrees in terms)


def _variance_of_mean(psi: np.ndarray) -> float:
    return float(psi @ psi) / (len(psi) * (len(psi) - 1)) if len(psi) > 1 else math.inf


def _blocks(psi: np.ndarray) -> np.ndarray:
    """psi, or where it is long the means of `_BLOCKS` blocks: as independent as their members, and quicker."""
    if len(psi) <= _BLOCKS:
        return psi
    starts = np.linspace(0, len(psi), _BLOCKS, endpoint=False).astype(int)
    return np.add.reduceat(psi, starts) * (_BLOCKS / len(psi))


@lru_cache(maxsize=8)
def _resamples(n: int, seed: int) -> np.ndarray:
    """The share of each of n samples in each resample: [resamples, n], the same at every call."""
    rng = np.random.default_rng((n, seed))
    shares = np.empty((_RESAMPLES, n), np.float32)
    for row in shares:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return shares / np.float32(n)
