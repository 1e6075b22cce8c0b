"""Noise paths: x_t = alpha(t) x_0 + sigma(t) eps, with x_0 the data and eps ~ N(0, I).

A path is two scalar functions of a time t and the two ends of the interval on
which a model is integrated, from `t_noise` to `t_data`. Time may run either
way. Everything here is host arithmetic on Python floats (float64): a path is
never evaluated on a device.

    lambda(t) = log(alpha / sigma)      half log-SNR
    nsr(t)    = sigma / alpha = exp(-lambda)

The linear path (CondOT) has alpha(0) = 0, so lambda(0) = -inf: solvers that
compute in lambda or in NSR cannot start there and start at `t_finite` instead
(1e-3, the start used by the rectified-flow code), at the state that one DDIM step
from the noise leads to; see `Path.t_finite` and `solvers.start`. So do VP paths with a
terminal SNR of zero (arXiv 2305.08891), or of nearly zero: they start at that lambda.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Self

__all__ = ["CosineFlow", "DiscreteVP", "Edm", "LinearFlow", "Path", "ScaledFlow", "SubVPLinear", "VPCosine",
           "VPLinear", "path_named", "zero_terminal_snr"]  # fmt: skip

_ALPHA_FINITE = 1e-3  # of the linear path where solvers in lambda start
_LAM_FINITE = math.log(_ALPHA_FINITE / (1 - _ALPHA_FINITE))


@dataclass(frozen=True, kw_only=True)
class Path(ABC):
    """A Gaussian noise path, restricted to the interval [t_noise, t_data].

    Attributes:
        t_noise: time at which sampling starts (x is noise).
        t_data: time at which sampling stops (x is data up to sigma(t_data) eps).
        prior_std: standard deviation of the noise that sampling starts from.
    """

    t_noise: float
    t_data: float
    prior_std: float = 1.0

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as written into checkpoints and rows."""

    @abstractmethod
    def alpha(self, t: float) -> float:
        """Data coefficient alpha(t) >= 0."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """Noise coefficient sigma(t) >= 0."""

    @abstractmethod
    def d_alpha(self, t: float) -> float:
        """d alpha / d t."""

    @abstractmethod
    def d_sigma(self, t: float) -> float:
        """d sigma / d t."""

    @abstractmethod
    def t_of_lam(self, lam: float) -> float:
        """The time t with lam(t) = lam; lam may be -inf or inf where the path reaches it."""

    def lam(self, t: float) -> float:
        """Half log-SNR log(alpha / sigma); -inf where alpha = 0, inf where sigma = 0."""
        alpha, sigma = self.alpha(t), self.sigma(t)
        if alpha <= 0:
            return -math.inf
        return math.inf if sigma <= 0 else math.log(alpha) - math.log(sigma)

    def nsr(self, t: float) -> float:
        """Noise-to-signal ratio sigma / alpha (arXiv 2308.07896, Prop. 3.1: unsquared)."""
        alpha = self.alpha(t)
        return math.inf if alpha <= 0 else self.sigma(t) / alpha

    def t_of_nsr(self, nsr: float) -> float:
        """The time with sigma/alpha = nsr."""
        return self.t_of_lam(-math.log(nsr) if nsr > 0 else math.inf)

    @property
    def t_finite(self) -> float:
        """First time at which lambda is finite: t_noise, except on paths with alpha(t_noise) = 0."""
        return self.t_noise

    def is_singular(self, t: float) -> bool:
        """Whether t lies before `t_finite`, where lambda is -inf, or too low to be computed with."""
        return self.alpha(t) <= 0 or (self.t_finite != self.t_noise and self.lam(t) < self.lam(self.t_finite))

    def between(self, t_noise: float, t_data: float) -> Self:
        """The same path on another interval."""
        return replace(self, t_noise=t_noise, t_data=t_data)


@dataclass(frozen=True, kw_only=True)
class _VP(Path):
    """A path that preserves the variance: alpha^2 + sigma^2 = 1."""

    @property
    def t_finite(self) -> float:
        return self.t_noise if self.lam(self.t_noise) >= _LAM_FINITE else self.t_of_lam(_LAM_FINITE)

    def d_sigma(self, t: float) -> float:
        return -self.alpha(t) * self.d_alpha(t) / self.sigma(t)


@dataclass(frozen=True, kw_only=True)
class VPLinear(_VP):
    """VP path with linear beta(t) = beta_min + t (beta_max - beta_min) (arXiv 2011.13456, eq. 33).

    log alpha = -(beta_max - beta_min) t^2/4 - beta_min t/2, sigma = sqrt(1 - alpha^2).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_noise: float = 1.0
    t_data: float = 1e-3

    @property
    def name(self) -> str:
        return "vp-linear"

    def _log_alpha(self, t: float) -> float:
        return -0.25 * (self.beta_max - self.beta_min) * t * t - 0.5 * self.beta_min * t

    def alpha(self, t: float) -> float:
        return math.exp(self._log_alpha(t))

    def sigma(self, t: float) -> float:
        return math.sqrt(-math.expm1(2 * self._log_alpha(t)))

    def d_alpha(self, t: float) -> float:
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min)) * self.alpha(t)

    def lam(self, t: float) -> float:
        log_alpha = self._log_alpha(t)
        return log_alpha - 0.5 * math.log(-math.expm1(2 * log_alpha)) if t > 0 else math.inf

    def t_of_lam(self, lam: float) -> float:
        return self._t_of_log_alpha(-0.5 * _softplus(-2 * lam))  # alpha^2 = 1 / (1 + nsr^2)

    def _t_of_log_alpha(self, log_alpha: float) -> float:
        q, delta = -2 * log_alpha, self.beta_max - self.beta_min
        return 2 * q / (math.sqrt(self.beta_min**2 + 2 * delta * q) + self.beta_min)


@dataclass(frozen=True, kw_only=True)
class SubVPLinear(VPLinear):
    """The sub-VP path with VP's alpha and sigma = 1 - alpha^2, the square of VP's (arXiv 2011.13456, eq. 29)."""

    @property
    def name(self) -> str:
        return "sub-vp"

    def sigma(self, t: float) -> float:
        return -math.expm1(2 * self._log_alpha(t))

    def d_sigma(self, t: float) -> float:
        return -2 * self.alpha(t) * self.d_alpha(t)

    def lam(self, t: float) -> float:
        return self._log_alpha(t) - math.log(self.sigma(t)) if t > 0 else math.inf

    def t_of_lam(self, lam: float) -> float:
        return self._t_of_log_alpha(-math.asinh(0.5 * math.exp(-lam)))  # nsr = 1 / alpha - alpha


@dataclass(frozen=True, kw_only=True)
class VPCosine(_VP):
    """VP path with the cosine schedule of arXiv 2102.09672: alpha = cos(pi/2 (t+s)/(1+s)) / cos(pi/2 s/(1+s))."""

    s: float = 0.008
    t_noise: float = 0.9946  # as in DPM-Solver: beyond it alpha falls too fast to be integrated
    t_data: float = 1e-3

    @property
    def name(self) -> str:
        return "vp-cosine"

    def _angle(self, t: float) -> float:
        return 0.5 * math.pi * (t + self.s) / (1 + self.s)

    @property
    def _scale(self) -> float:
        return math.cos(self._angle(0.0))

    def alpha(self, t: float) -> float:
        return math.cos(self._angle(t)) / self._scale

    def sigma(self, t: float) -> float:
        return math.sqrt(max(0.0, 1 - self.alpha(t) ** 2))

    def d_alpha(self, t: float) -> float:
        return -0.5 * math.pi / (1 + self.s) * math.sin(self._angle(t)) / self._scale

    def t_of_lam(self, lam: float) -> float:
        alpha = math.exp(-0.5 * _softplus(-2 * lam))
        return math.acos(min(1.0, alpha * self._scale)) * 2 * (1 + self.s) / math.pi - self.s


@dataclass(frozen=True, kw_only=True)
class DiscreteVP(_VP):
    """A DDPM table of `betas` read as a continuous path (arXiv 2206.00927, appendix D.2).

    t_i = i/N for i = 1..N with log alpha(t_i) = 1/2 sum_{j<=i} log(1 - beta_j); log alpha
    is piecewise linear in t between the nodes and extended linearly beyond them; t = 0 is clean data
    (alpha = 1), the end of integer grids, whose index j is t = (j + 1)/N. Where the last beta is 1 (a terminal SNR of
    zero, arXiv 2305.08891) alpha itself is linear, from t_{N-1} to alpha(1) = 0.
    """

    betas: tuple[float, ...] = field(repr=False)
    t_noise: float = 1.0
    t_data: float = 1e-3

    @property
    def name(self) -> str:
        return "vp-discrete"

    @classmethod
    def ddpm(cls, n: int = 1000, first: float = 1e-4, last: float = 0.02) -> DiscreteVP:
        """The linear table of DDPM (arXiv 2006.11239)."""
        return cls(betas=tuple(first + (last - first) * i / (n - 1) for i in range(n)))

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas[:-1]) or not 0 <= self.betas[-1] <= 1:
            raise ValueError("betas are numbers from 0 to 1, and only the last may be 1, where alpha is 0")

    @cached_property
    def log_alphas(self) -> tuple[float, ...]:
        """log alpha at t_1..t_N; the last is -inf where the last beta is 1."""
        total, table = 0.0, []
        for beta in self.betas:
            total += 0.5 * math.log1p(-beta) if beta < 1 else -math.inf
            table.append(total)
        return tuple(table)

    def _segment(self, index: int) -> tuple[float, float, float]:
        """(t, log alpha, slope) of the segment that starts at node `index`, clamped to the ends."""
        table, n = self.log_alphas, len(self.betas)
        index = min(max(index, 0), n - 2)
        return (index + 1) / n, table[index], (table[index + 1] - table[index]) * n

    def _log_alpha(self, t: float) -> float:
        if t <= 0:
            return 0.0
        start, value, slope = self._segment(math.floor(t * len(self.betas)) - 1)
        if slope == -math.inf:
            kept = (1 - t) * len(self.betas)
            return value + math.log(kept) if kept > 0 else -math.inf
        return value + slope * (t - start)

    def alpha(self, t: float) -> float:
        return math.exp(self._log_alpha(t))

    def sigma(self, t: float) -> float:
        return math.sqrt(max(0.0, -math.expm1(2 * self._log_alpha(t))))

    def d_alpha(self, t: float) -> float:
        _, value, slope = self._segment(math.floor(t * len(self.betas)) - 1)
        return -math.exp(value) * len(self.betas) if slope == -math.inf else slope * self.alpha(t)

    def t_of_lam(self, lam: float) -> float:
        if lam == math.inf:
            return 0.0
        log_alpha = -0.5 * _softplus(-2 * lam)
        index = bisect.bisect_left(self.log_alphas, -log_alpha, key=lambda v: -v) - 1
        start, value, slope = self._segment(index)
        if slope == -math.inf:
            return 1 - math.exp(log_alpha - value) / len(self.betas)
        return start + (log_alpha - value) / slope


@dataclass(frozen=True, kw_only=True)
class Edm(Path):
    """The VE path in EDM's own time (arXiv 2206.00364): alpha = 1, sigma = t."""

    t_noise: float = 80.0
    t_data: float = 0.002
    prior_std: float = 80.0

    @property
    def name(self) -> str:
        return "edm"

    def alpha(self, t: float) -> float:
        return 1.0

    def sigma(self, t: float) -> float:
        return t

    def d_alpha(self, t: float) -> float:
        return 0.0

    def d_sigma(self, t: float) -> float:
        return 1.0

    def t_of_lam(self, lam: float) -> float:
        return math.exp(-lam)


@dataclass(frozen=True, kw_only=True)
class LinearFlow(Path):
    """CondOT / rectified flow: x_t = t x_0 + (1 - t) eps, t = 0 noise, t = 1 data (arXiv 2209.03003).

    lambda(0) = -inf and lambda(1) = inf. Sampling stops at t_data = 0.999, where the noise left
    is 0.001, far below one grey level; velocity and data-prediction multistep solvers start at 0,
    solvers in lambda or NSR at `t_finite` = 0.001, with x = sigma z + alpha D, D their first data prediction.
    """

    t_noise: float = 0.0
    t_data: float = 1 - 1e-3

    @property
    def name(self) -> str:
        return "flow"

    @property
    def t_finite(self) -> float:
        return max(self.t_noise, _ALPHA_FINITE)

    def alpha(self, t: float) -> float:
        return t

    def sigma(self, t: float) -> float:
        return 1.0 - t

    def d_alpha(self, t: float) -> float:
        return 1.0

    def d_sigma(self, t: float) -> float:
        return -1.0

    def t_of_lam(self, lam: float) -> float:
        return 1 / (1 + math.exp(-lam)) if lam > -700 else 0.0


@dataclass(frozen=True, kw_only=True)
class ScaledFlow(LinearFlow):
    """The linear path with its noise scaled up: sigma = scale (1 - t), the sigma_0 preconditioning of BNS (2403.01329).

    Its uniform grid is the grid shifted by `scale` of the linear path: small steps at the noise end for scale > 1.
    """

    scale: float

    @property
    def name(self) -> str:
        return "flow-scaled"

    def sigma(self, t: float) -> float:
        return self.scale * (1.0 - t)

    def d_sigma(self, t: float) -> float:
        return -self.scale

    def t_of_lam(self, lam: float) -> float:
        return super().t_of_lam(lam + math.log(self.scale))


@dataclass(frozen=True, kw_only=True)
class CosineFlow(Path):
    """Trigonometric flow: alpha = sin(pi t/2), sigma = cos(pi t/2), t = 0 noise, t = 1 data."""

    t_noise: float = 0.0
    t_data: float = 1 - 1e-3

    @property
    def name(self) -> str:
        return "flow-cosine"

    @property
    def t_finite(self) -> float:
        return max(self.t_noise, 1e-3)

    def alpha(self, t: float) -> float:
        return math.sin(0.5 * math.pi * t)

    def sigma(self, t: float) -> float:
        return math.cos(0.5 * math.pi * t)

    def d_alpha(self, t: float) -> float:
        return 0.5 * math.pi * math.cos(0.5 * math.pi * t)

    def d_sigma(self, t: float) -> float:
        return -0.5 * math.pi * math.sin(0.5 * math.pi * t)

    def t_of_lam(self, lam: float) -> float:
        return 2 / math.pi * math.atan(math.exp(lam))


def zero_terminal_snr(betas: Sequence[float]) -> tuple[float, ...]:
    """A table of betas rescaled so that the last alpha is 0 and the first is kept (arXiv 2305.08891, algorithm 1)."""
    kept, alphas = 1.0, []
    for beta in betas:
        kept *= 1 - beta
        alphas.append(math.sqrt(kept))
    first, last = alphas[0], alphas[-1]
    scaled = [(alpha - last) * first / (first - last) for alpha in alphas]
    return tuple(1 - (now / before) ** 2 for before, now in pairwise([1.0, *scaled]))


def _softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_PATHS: dict[str, Path] = {
    path.name: path
    for path in (VPLinear(), SubVPLinear(), VPCosine(), DiscreteVP.ddpm(), Edm(), LinearFlow(), CosineFlow())
}


def path_named(name: str) -> Path:
    """The path of that name with its published constants.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in _PATHS:
        raise ValueError(f"unknown path {name!r}; known: {', '.join(_PATHS)}")
    return _PATHS[name]
