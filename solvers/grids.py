"""Time grids: n intervals from t_start to t_end of a path, as n + 1 Python floats.

A grid is a function `grid(path, n, t_start, t_end, **parameters)`. It knows nothing of solvers.
`Grid.parse("karras:rho=5")` names one with parameters; a file of times (one per line, or a JSON
list) is `file:PATH`. What a `Grid` returns is a grid: its times run strictly from one end of the
interval to the other, or it is refused.

Grids in lambda or NSR are singular where alpha = 0 (t = 0 of CondOT): there they start at
`path.t_finite` instead.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded
from fastsample.datasets.names import nearest
from fastsample.datasets.text import text_of
from fastsample.models.path import Path

__all__ = ["GRIDS", "BudgetError", "Grid", "GridError"]

_Times = Callable[..., list[float]]
GRIDS: dict[str, _Times] = {}
_RANGES: dict[str, dict[str, tuple[float, float]]] = {}  # of the parameters of each grid, ends included


class BudgetError(ValueError):
    """A budget of evaluations or intervals that a method, grid or table cannot spend; a sweep goes on without it."""


class GridError(ValueError):
    """A grid that does not exist on this path or interval, or with these parameters."""


def _grid(name: str, **ranges: tuple[float, float]) -> Callable[[_Times], _Times]:
    """Register a grid with the ranges of its parameters, within which its times are good to 1e-7."""

    def register(function: _Times) -> _Times:
        GRIDS[name], _RANGES[name] = function, ranges
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


@_grid("nsr", k=(0, 1e6))
def nsr(path: Path, n: int, t_start: float, t_end: float, *, k: float = 3.1) -> list[float]:
    """SciRE's NSR trajectory (arXiv 2308.07896, code): log(nsr + k nsr_end) uniform.

    k = 0 is the logSNR grid, k -> infinity uniform NSR.
    """
    first, last = path.nsr(_finite(path, t_start)), path.nsr(t_end)
    logs = _linspace(-math.log(first + k * last), -math.log(last + k * last), n)
    return [path.t_of_nsr(math.exp(-u) - k * last) for u in logs]


@_grid("karras", rho=(1, 1000))
def karras(path: Path, n: int, t_start: float, t_end: float, *, rho: float = 7.0) -> list[float]:
    """nsr^(1/rho) uniform (arXiv 2206.00364, eq. 5, whose sigma is our NSR)."""
    first, last = path.nsr(_finite(path, t_start)), path.nsr(t_end)
    return [path.t_of_nsr(root**rho) for root in _linspace(first ** (1 / rho), last ** (1 / rho), n)]


@_grid("shift", s=(0.001, 1000))
def shift(path: Path, n: int, t_start: float, t_end: float, *, s: float = 3.0) -> list[float]:
    """Shifted uniform grid r / (r + s (1 - r)): small steps at the noise end for s > 1 (SD3's shift)."""
    return [t_start + (t_end - t_start) * r / (r + s * (1 - r)) for r in (i / n for i in range(n + 1))]


@_grid("sigmoid", width=(0.01, 20))
def sigmoid(path: Path, n: int, t_start: float, t_end: float, *, width: float = 3.0) -> list[float]:
    """lambda = centre + half-range * S(u), with S an inverse-sigmoid spacing: dense in the middle of lambda.

    arXiv 2308.07896 names a sigmoid grid without giving its formula; this is ours:
    lambda_i is the rescaled logit of u_i uniform in [1/(1+e^width), 1/(1+e^-width)].
    """
    first, last = path.lam(_finite(path, t_start)), path.lam(t_end)
    edge = 1 / (1 + math.exp(width))
    spacing = [math.log(u / (1 - u)) / width for u in _linspace(edge, 1 - edge, n)]
    return [path.t_of_lam(first + (last - first) * 0.5 * (1 + z)) for z in spacing]


@_grid("vp-time", rho=(1, 100), eps=(1e-4, 0.1), sigma_min=(1e-6, 0.02), sigma_max=(10, 1e6))
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

    first, last = v(path.nsr(_finite(path, t_start))), v(path.nsr(t_end))
    times = [root**rho for root in _linspace(first ** (1 / rho), last ** (1 / rho), n)]
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
    entries = list(range(0, 1000, max(1, 1000 // n)))
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
        raise GridError(f"integer grids belong to VP paths, not to {path.name}")
    if len(entries) < 2:
        raise BudgetError("an integer grid needs at least 2 intervals: with one it would start at entry 0, near data")
    if entries[-1] > 999:
        raise BudgetError(f"an integer grid has at most 1000 intervals, not {len(entries)}")
    return [*((j + 1) / 1000 for j in reversed(entries)), 0.0]


@dataclass(frozen=True)
class Grid:
    """A named grid with its parameters; `str()` gives back what `parse` reads."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    times: tuple[float, ...] = ()  # of a file

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Read `name` or `name:key=value,...`; `file:PATH` is a list of times.

        A file's grid is named `file:NAME@HASH`, without the folder: `file:PATH@HASH` reads it if it still is that one.

        Raises:
            GridError: for an unknown grid or parameter, a value that is no number or out of its range, a file without
                times.
        """
        name, _, rest = text.partition(":")
        if name == "file":
            return cls(*_from_file(rest))
        if name not in GRIDS:
            raise GridError(nearest(name, [*GRIDS, "file"], "grid"))
        ranges, parameters = _RANGES[name], {}
        for item in filter(None, rest.split(",")):
            key, _, value = item.partition("=")
            if key not in ranges:
                raise GridError(nearest(key, list(ranges), f"parameter of grid {name}"))
            try:
                parameters[key] = float(value)
            except ValueError:
                raise GridError(f"grid {name}: {key}={value!r} is not a number; {_range(name, key)}") from None
            low, high = ranges[key]
            if not low <= parameters[key] <= high:
                raise GridError(f"grid {name}: {key}={value} is out of range; {_range(name, key)}")
        return cls(name, parameters)

    def __str__(self) -> str:
        items = ",".join(f"{key}={_shortest(value)}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}:{items}" if items else self.name

    def __call__(self, path: Path, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
        """The n + 1 times from t_start (or `path.t_finite`, where alpha(t_start) = 0) to t_end, strictly monotone.

        Those of an integer grid are of a whole run: they end at clean data, t = 0.

        Raises:
            BudgetError: for a number of intervals that the grid cannot have.
            GridError: if the grid or the file has no such times here.
        """
        if n < 1:
            raise BudgetError(f"a grid needs at least one interval, not {n}")
        if self.name.startswith("file:"):
            if len(self.times) != n + 1:
                told = f"grid file {self.name[5:]} holds {len(self.times)} times"
                raise BudgetError(f"{told}; this solver and NFE need {n + 1}")
            times = self.times
        else:
            try:
                times = tuple(GRIDS[self.name](path, n, t_start, t_end, **self.parameters))
            except (GridError, BudgetError):
                raise
            except (ArithmeticError, ValueError):  # of a logarithm or a power
                times = (math.nan, math.nan)
        if self.name.startswith("integer-"):
            whole = times[0] <= t_start and t_end <= path.t_data and times[-1] == 0
        else:
            start = min(t_start, _finite(path, t_start), key=lambda start: abs(start - times[0]))
            whole = _near(times[0], start) and _near(times[-1], t_end)
            if self.name.startswith("file:") and whole:
                times = (start, *times[1:-1], t_end)
        steps = [b - a if t_end > t_start else a - b for a, b in pairwise(times)]
        if not whole or not all(step > 0 or (step == 0 and self.name == "integer-quad-official") for step in steps):
            told = "".join(f"; {_range(self.name, key)}" for key in _RANGES.get(self.name, ()))
            raise GridError(
                f"the times of grid {self} do not run strictly from {t_start:.9g} to {t_end:.9g}, the interval on the "
                f"{path.name} path{told}"
            )
        return times


def _near(t: float, end: float) -> bool:
    return math.isclose(t, end, rel_tol=1e-6, abs_tol=1e-9)


def _range(name: str, key: str) -> str:
    low, high = _RANGES[name][key]
    return f"{key} is a number from {low:g} to {high:g}"


def _shortest(value: float) -> str:
    """The shortest text that reads back as the value."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _from_file(text: str) -> tuple[str, dict[str, float], tuple[float, ...]]:
    """The name, no parameters and the times of the grid in a file."""
    match = re.fullmatch(r"(.+)@([0-9a-f]{16})", text)
    file, known = expanded(match[1] if match else text), match[2] if match else ""
    try:
        data = read_small(file)
        content = text_of(data)
        values: Any = json.loads(content) if content.lstrip().startswith("[") else content.split()
        times = tuple(float(value) for value in values)
    except (OSError, ValueError, TypeError) as error:
        raise GridError(f"grid file {file}: {error}") from None
    digest = hashlib.sha256(data).hexdigest()[:16]
    if known not in ("", digest):
        raise GridError(f"grid file {file} is another one by now: its sha256 begins with {digest}, not with {known}")
    if not times:
        raise GridError(f"grid file {file} holds no times")
    name = os.fsencode(file.name).decode("utf-8", "backslashreplace")  # which the locale may not have read as UTF-8
    return f"file:{name}@{digest}", {}, times
