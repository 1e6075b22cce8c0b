"""Time grids: n intervals from t_start to t_end of a path, as n + 1 Python floats.

A grid is a function `grid(path, n, t_start, t_end, **parameters)`. It knows nothing of solvers.
`Grid.parse("karras:rho=5")` names one with parameters; a file of times (one per line, or a JSON
list) is `file:PATH`.

Grids in lambda or NSR are singular where alpha = 0 (t = 0 of CondOT): there they start at
`path.t_finite` instead.
"""

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from fastsample.datasets.names import nearest
from fastsample.models.path import Path

__all__ = ["GRIDS", "Grid"]

GRIDS: dict[str, Callable[..., list[float]]] = {}


def _grid(name: str) -> Callable[[Callable[..., list[float]]], Callable[..., list[float]]]:
    def register(function: Callable[..., list[float]]) -> Callable[..., list[float]]:
        GRIDS[name] = function
        return function

    return register


def _linspace(a: float, b: float, n: int) -> list[float]:
    return [a + (b - a) * i / n for i in range(n + 1)]


def _finite(path: Path, t_start: float) -> float:
    return path.t_finite if path.alpha(t_start) <= 0 else t_start


@_grid("uniform")
def uniform(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Uniform in the path's own time (`time_uniform` of DPM-Solver; uniform steps of a flow)."""
    return _linspace(t_start, t_end, n)


@_grid("quadratic")
def quadratic(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Quadratic in time, small steps at the data end.

    Noise-to-data times that fall (VP, EDM): sqrt(t) is uniform (`time_quadratic`). Times that rise
    (flows): t = t_end - (t_end - t_start) (1 - i/n)^2.
    """
    if t_end > t_start:
        return [t_start + (t_end - t_start) * (2 * i / n - (i / n) ** 2) for i in range(n + 1)]
    return [root * root for root in _linspace(math.sqrt(t_start), math.sqrt(t_end), n)]


@_grid("logsnr")
def logsnr(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Uniform in lambda (arXiv 2206.00927)."""
    return [path.t_of_lam(lam) for lam in _linspace(path.lam(_finite(path, t_start)), path.lam(t_end), n)]


@_grid("nsr")
def nsr(path: Path, n: int, t_start: float, t_end: float, *, k: float = 3.1) -> list[float]:
    """SciRE's NSR trajectory (arXiv 2308.07896, code): log(nsr + k nsr_end) uniform.

    k = 0 is the logSNR grid, k -> infinity uniform NSR.
    """
    first, last = path.nsr(_finite(path, t_start)), path.nsr(t_end)
    logs = _linspace(-math.log(first + k * last), -math.log(last + k * last), n)
    return [path.t_of_nsr(math.exp(-u) - k * last) for u in logs]


@_grid("karras")
def karras(path: Path, n: int, t_start: float, t_end: float, *, rho: float = 7.0) -> list[float]:
    """nsr^(1/rho) uniform (arXiv 2206.00364, eq. 5, whose sigma is our NSR)."""
    first, last = path.nsr(_finite(path, t_start)), path.nsr(t_end)
    return [path.t_of_nsr(root**rho) for root in _linspace(first ** (1 / rho), last ** (1 / rho), n)]


@_grid("shift")
def shift(path: Path, n: int, t_start: float, t_end: float, *, s: float = 3.0) -> list[float]:
    """Shifted uniform grid r / (r + s (1 - r)): small steps at the noise end for s > 1 (SD3's shift)."""
    return [t_start + (t_end - t_start) * r / (r + s * (1 - r)) for r in (i / n for i in range(n + 1))]


@_grid("sigmoid")
def sigmoid(path: Path, n: int, t_start: float, t_end: float, *, width: float = 3.0) -> list[float]:
    """lambda = centre + half-range * S(u), with S an inverse-sigmoid spacing: dense in the middle of lambda.

    arXiv 2308.07896 names a sigmoid grid without giving its formula; this is ours:
    lambda_i is the rescaled logit of u_i uniform in [1/(1+e^width), 1/(1+e^-width)].
    """
    first, last = path.lam(_finite(path, t_start)), path.lam(t_end)
    edge = 1 / (1 + math.exp(width))
    spacing = [math.log(u / (1 - u)) / width for u in _linspace(edge, 1 - edge, n)]
    return [path.t_of_lam(first + (last - first) * 0.5 * (1 + z)) for z in spacing]


@_grid("vp-time")
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

    sigma = sqrt(exp(beta_d v^2/2 + beta_m v) - 1) with the fixed fit to [sigma_min, sigma_max]; the fit
    does not follow t_start and t_end, as in the original.
    """
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    beta_d = 2 * (low / eps - high) / (eps - 1)
    beta_m = high - 0.5 * beta_d
    times = [(1 + i / n * (eps ** (1 / rho) - 1)) ** rho for i in range(n + 1)]
    return [path.t_of_nsr(math.sqrt(math.expm1(0.5 * beta_d * v * v + beta_m * v))) for v in times]


@_grid("integer-uniform")
def integer_uniform(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """n equally spaced entries of a table of 1000 betas, floor(1000 i / n), then clean data (t = 0).

    Entry j is the time (j + 1) / 1000. Where n divides 1000 these are the times of the official DDIM.
    """
    return _entries(path, [1000 * i // n for i in range(min(n, 1000))])


@_grid("integer-uniform-official")
def integer_uniform_official(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """DDIM's and PNDM's "uniform": every floor(1000 / n)-th entry, which may be more than n (then it warns)."""
    entries = list(range(0, 1000, 1000 // n))
    if len(entries) > n:
        warnings.warn(f"integer-uniform-official has {len(entries)} intervals instead of {n}", stacklevel=4)
    return _entries(path, entries)


@_grid("integer-quad")
def integer_quad(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """`integer-quad-official` with a repeated entry moved to the next free one, so that all steps have a length."""
    entries: list[int] = []
    for j in _quadratic_entries(n):
        entries.append(max(j, entries[-1] + 1) if entries else j)
    return _entries(path, entries)


@_grid("integer-quad-official")
def integer_quad_official(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """DDIM's "quad": the squares of n numbers from 0 to sqrt(800), rounded down; small ones may repeat."""
    return _entries(path, _quadratic_entries(n))


def _quadratic_entries(n: int) -> list[int]:
    return [int(root * root) for root in np.linspace(0, math.sqrt(800), n)]


def _entries(path: Path, entries: list[int]) -> list[float]:
    """The times of a rising list of table entries, noise first, and t = 0."""
    if not path.name.startswith("vp"):
        raise ValueError(f"integer grids belong to VP paths, not to {path.name}")
    if len(entries) < 2:
        raise ValueError("an integer grid needs at least 2 intervals: with one it would start at entry 0, all but data")
    return [*((j + 1) / 1000 for j in reversed(entries)), 0.0]


@dataclass(frozen=True)
class Grid:
    """A named grid with its parameters; `str()` gives back what `parse` reads."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Read `name` or `name:key=value,...`; `file:PATH` is a list of times.

        Raises:
            ValueError: for an unknown grid or parameter, or a value that is no number.
        """
        name, _, rest = text.partition(":")
        if name == "file":
            return cls(text)
        if name not in GRIDS:
            raise ValueError(nearest(name, [*GRIDS, "file"], "grid"))
        known = [p.name for p in inspect.signature(GRIDS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
        parameters = {}
        for item in filter(None, rest.split(",")):
            key, _, value = item.partition("=")
            if key not in known:
                raise ValueError(nearest(key, known, f"parameter of grid {name}"))
            try:
                parameters[key] = float(value)
            except ValueError:
                raise ValueError(f"grid {name}: {key}={value!r} is not a number") from None
        return cls(name, parameters)

    def __str__(self) -> str:
        items = ",".join(f"{key}={value:g}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}:{items}" if items else self.name

    def __call__(self, path: Path, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
        """The n + 1 times from t_start to t_end.

        Raises:
            ValueError: if n < 1, or if the times of a file are not n + 1 monotone times of the interval.
        """
        if n < 1:
            raise ValueError(f"a grid needs at least one interval, not {n}")
        if self.name.startswith("file:"):
            return _from_file(FilePath(self.name[5:]), n, t_start, t_end)
        return tuple(GRIDS[self.name](path, n, t_start, t_end, **self.parameters))


def _from_file(file: FilePath, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
    try:
        text = file.read_text()
        values: Any = json.loads(text) if text.lstrip().startswith("[") else text.split()
        times = tuple(float(value) for value in values)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"grid file {file}: {error}") from None
    if len(times) != n + 1:
        raise ValueError(f"grid file {file} holds {len(times)} times; this solver and NFE need {n + 1}")
    sign = 1 if t_end > t_start else -1
    if any(sign * (b - a) <= 0 for a, b in zip(times, times[1:], strict=False)):
        raise ValueError(f"grid file {file}: times must run strictly from noise ({t_start:g}) to data ({t_end:g})")
    if (
        not all(math.isfinite(t) for t in times)
        or sign * (times[0] - t_start) < -1e-9
        or sign * (t_end - times[-1]) < -1e-9
    ):
        raise ValueError(f"grid file {file}: times leave the interval from {t_start:g} to {t_end:g}")
    return times
