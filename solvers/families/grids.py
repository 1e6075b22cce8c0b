"""The time grids: uniform in a variable, or entries of a table of 1000 betas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from fastsample.models.path import Path
from fastsample.solvers.grids import BudgetError, GridError, finite_start, register_grid


def _linspace(a: float, b: float, n: int) -> list[float]:
    return [a + (b - a) * i / n for i in range(n + 1)]


@register_grid("uniform")
def uniform(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Uniform in the path's own time (`time_uniform` of DPM-Solver; uniform steps of a flow)."""
    return _linspace(t_start, t_end, n)


@register_grid("quadratic")
def quadratic(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Quadratic in time, small steps at the data end.

    Noise-to-data times that fall (VP, EDM): sqrt(t) is uniform (`time_quadratic`). Times that rise
    (flows): t = t_end - (t_end - t_start) (1 - i/n)^2.
    """
    if t_end > t_start:
        return [t_start + (t_end - t_start) * (2 * i / n - (i / n) ** 2) for i in range(n + 1)]
    return [root * root for root in _linspace(math.sqrt(t_start), math.sqrt(t_end), n)]


@register_grid("logsnr")
def logsnr(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Uniform in lambda (arXiv 2206.00927)."""
    return [path.t_of_lam(lam) for lam in _linspace(path.lam(finite_start(path, t_start)), path.lam(t_end), n)]


@register_grid("nsr", k=(0, 1e6))
def nsr(path: Path, n: int, t_start: float, t_end: float, *, k: float = 3.1) -> list[float]:
    """SciRE's NSR trajectory (arXiv 2308.07896, code): log(nsr + k nsr_end) uniform.

    k = 0 is the logSNR grid, k -> infinity uniform NSR.
    """
    first, last = path.nsr(finite_start(path, t_start)), path.nsr(t_end)
    logs = _linspace(-math.log(first + k * last), -math.log(last + k * last), n)
    return [path.t_of_nsr(math.exp(-u) - k * last) for u in logs]


@register_grid("karras", rho=(1, 1000))
def karras(path: Path, n: int, t_start: float, t_end: float, *, rho: float = 7.0) -> list[float]:
    """nsr^(1/rho) uniform (arXiv 2206.00364, eq. 5, whose sigma is our NSR)."""
    first, last = path.nsr(finite_start(path, t_start)), path.nsr(t_end)
    return [path.t_of_nsr(root**rho) for root in _linspace(first ** (1 / rho), last ** (1 / rho), n)]


@register_grid("shift", s=(0.001, 1000))
def shift(path: Path, n: int, t_start: float, t_end: float, *, s: float = 3.0) -> list[float]:
    """Shifted uniform grid r / (r + s (1 - r)): small steps at the noise end for s > 1 (SD3's shift)."""
    return [t_start + (t_end - t_start) * r / (r + s * (1 - r)) for r in (i / n for i in range(n + 1))]


@register_grid("sigmoid", width=(0.01, 20))
def sigmoid(path: Path, n: int, t_start: float, t_end: float, *, width: float = 3.0) -> list[float]:
    """lambda = centre + half-range * S(u), with S an inverse-sigmoid spacing: dense in the middle of lambda.

    arXiv 2308.07896 names a sigmoid grid without giving its formula; this is ours:
    lambda_i is the rescaled logit of u_i uniform in [1/(1+e^width), 1/(1+e^-width)].
    """
    first, last = path.lam(finite_start(path, t_start)), path.lam(t_end)
    edge = 1 / (1 + math.exp(width))
    spacing = [math.log(u / (1 - u)) / width for u in _linspace(edge, 1 - edge, n)]
    return [path.t_of_lam(first + (last - first) * 0.5 * (1 + z)) for z in spacing]


@register_grid("vp-time", rho=(1, 100), eps=(1e-4, 0.1), sigma_min=(1e-6, 0.02), sigma_max=(10, 1e6))
def vp_time(
    path: Path,
    n: int,
    t_start: float,
    t_end: float,
    *,
    rho: float = 1.0,
    eps: float = 1e-3,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> list[float]:
    """diff-sampler's `time_uniform(rho)`: uniform in v^(1/rho), v the time of a VP schedule fitted to sigma.

    sigma = sqrt(exp(beta_d v^2/2 + beta_m v) - 1) with sigma(eps) = sigma_min and sigma(1) = sigma_max; v runs
    from that of the interval's start to that of its end, which are 1 and eps where the fit is to the interval.
    """
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    beta_d = 2 * (low / eps - high) / (eps - 1)
    beta_m = high - 0.5 * beta_d

    def v(nsr: float) -> float:
        q = math.log1p(nsr * nsr)
        root = math.sqrt(beta_m**2 + 2 * beta_d * q)
        return 2 * q / (beta_m + root) if beta_m > 0 else (root - beta_m) / beta_d

    first, last = v(path.nsr(finite_start(path, t_start))), v(path.nsr(t_end))
    times = [root**rho for root in _linspace(first ** (1 / rho), last ** (1 / rho), n)]
    return [path.t_of_nsr(math.sqrt(math.expm1(0.5 * beta_d * v * v + beta_m * v))) for v in times]


@register_grid("integer-uniform")
def integer_uniform(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """n equally spaced entries of a table of 1000 betas, floor(1000 i / n), then clean data (t = 0).

    Entry j is the time (j + 1) / 1000. Where n divides 1000 these are the times of the official DDIM.
    """
    return table_entries(path, [1000 * i // n for i in range(min(n, 1000))])


@register_grid("integer-uniform-official")
def integer_uniform_official(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """DDIM's and PNDM's "uniform": every floor(1000 / n)-th entry, which may be more than n (then it warns)."""
    entries = list(range(0, 1000, max(1, 1000 // n)))
    told_of_more("integer-uniform-official", len(entries), n)
    return table_entries(path, entries)


@register_grid("integer-quad")
def integer_quad(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """`integer-quad-official` with a repeated entry moved to the next free one, so that all steps have a length."""
    entries: list[int] = []
    for j in _quadratic_entries(n):
        entries.append(max(j, entries[-1] + 1) if entries else j)
    return table_entries(path, entries)


@register_grid("integer-quad-official")
def integer_quad_official(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """DDIM's "quad": the squares of n numbers from 0 to sqrt(800), rounded down; small ones may repeat."""
    return table_entries(path, _quadratic_entries(n))


def _quadratic_entries(n: int) -> list[int]:
    return [int(root * root) for root in np.linspace(0, math.sqrt(800), n)]


def table_entries(path: Path, entries: Sequence[float]) -> list[float]:
    """The times of a rising list of table entries, noise first, and t = 0; between entries log NSR is linear."""
    if not path.name.startswith("vp"):
        raise GridError(f"integer grids belong to VP paths, not to {path.name}")
    if len(entries) < 2:
        raise BudgetError("an integer grid needs at least 2 intervals: with one it would start at entry 0, near data")
    if entries[-1] > 999:
        raise BudgetError(f"an integer grid has at most 1000 intervals, not {len(entries)}")
    return [*(_entry_time(path, j) for j in reversed(entries)), 0.0]


def _entry_time(path: Path, j: float) -> float:
    low, share = int(j), j - int(j)
    if share == 0:
        return (j + 1) / 1000
    lam = (1 - share) * path.lam((low + 1) / 1000) + share * path.lam((low + 2) / 1000)
    return path.t_of_lam(lam) if math.isfinite(lam) else (j + 1) / 1000


def told_of_more(name: str, made: int, n: int) -> None:
    """Warn of an official grid with more intervals than asked for."""
    if made > n:
        warnings.warn(f"{name} has {made} intervals instead of {n}", stacklevel=5)
