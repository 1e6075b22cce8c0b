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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded
from fastsample.datasets.names import nearest, number
from fastsample.datasets.text import text_of
from fastsample.models.path import Path

__all__ = ["FOUND", "GRIDS", "BudgetError", "Grid", "GridError", "SettingError", "finite_start", "register_grid"]

_Times = Callable[..., list[float]]
GRIDS: dict[str, _Times] = {}
FOUND = {  # for a model, a solver and a budget, by `fastsample find`
    "gits": "Found for a model: the cheapest steps along a teacher's trajectory (arXiv 2405.11326).",
    "oss": "Found for a model: the steps that end nearest to a teacher's (arXiv 2503.21774).",
    "dmn": "Found for a path: the steps of the lowest bound of the error (arXiv 2402.17376).",
}
_RANGES: dict[str, dict[str, tuple[float, float]]] = {}  # of the parameters of each grid, ends included


class BudgetError(ValueError):
    """A budget of evaluations or intervals that a method, grid or table cannot spend; a sweep goes on without it."""


class GridError(ValueError):
    """A grid that does not exist on this path or interval, or with these parameters."""


class SettingError(ValueError):
    """A known option of a solver or parameter of a grid, with a value that it cannot have."""


def register_grid(name: str, **ranges: tuple[float, float]) -> Callable[[_Times], _Times]:
    """Register a function of (path, n, t_start, t_end) under a name, with the ranges of its parameters.

    Within them, ends included, its n + 1 times are to be good to 1e-7.
    """

    def register(function: _Times) -> _Times:
        GRIDS[name], _RANGES[name] = function, ranges
        return function

    return register


def finite_start(path: Path, t_start: float) -> float:
    """Where a grid in lambda or NSR begins: `path.t_finite`, where t_start is singular."""
    return path.t_finite if path.is_singular(t_start) else t_start


@dataclass(frozen=True)
class Grid:
    """A named grid with its parameters; `str()` gives back what `parse` reads."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    times: tuple[float, ...] = ()  # of a file, or of a grid that was found

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Read `name` or `name:key=value,...`; `file:PATH` is a list of times.

        A file's grid is named `file:NAME@HASH`, without the folder: `file:PATH@HASH` reads it if it still is that one.

        Raises:
            GridError: for an unknown grid or parameter, or a file without times.
            SettingError: for a value that is no number or out of its range.
        """
        name, _, rest = text.partition(":")
        if name == "file":
            return cls(*_from_file(rest))
        if name in FOUND:
            if rest:
                raise GridError(f"grid {name} is found and has no parameters, not {rest!r}")
            return cls(name)
        if name not in GRIDS:
            raise GridError(nearest(name, [*GRIDS, *FOUND, "file"], "grid"))
        ranges, parameters = _RANGES[name], {}
        for item in filter(None, rest.split(",")):
            key, _, value = item.partition("=")
            if key not in ranges:
                raise GridError(nearest(key, list(ranges), f"parameter of grid {name}"))
            try:
                parameters[key] = float(value)
            except ValueError:
                raise SettingError(f"grid {name}: {key}={value!r} is not a number; {_range(name, key)}") from None
            low, high = ranges[key]
            if not low <= parameters[key] <= high:
                raise SettingError(f"grid {name}: {key}={value} is out of range; {_range(name, key)}")
        return cls(name, parameters)

    def __str__(self) -> str:
        items = ",".join(f"{key}={number(value)}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}:{items}" if items else self.name

    def __call__(self, path: Path, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
        """The n + 1 times from t_start (or `path.t_finite`, if that is later) to t_end, strictly monotone.

        Those of an integer grid are of a whole run: they end at clean data, t = 0.

        Raises:
            BudgetError: for a number of intervals that the grid cannot have.
            GridError: if the grid or the file has no such times here.
        """
        if n < 1:
            raise BudgetError(f"a grid needs at least one interval, not {n}")
        if self.name in FOUND and not self.times:
            raise GridError(f"grid {self.name} is found for a model: `fastsample find {self.name} --model M` finds it")
        if self.times:
            if len(self.times) != n + 1:
                what = f"grid file {self.name[5:]}" if self.name.startswith("file:") else f"grid {self.name}"
                told = f"{what} holds {len(self.times)} times"
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
            start = min(t_start, finite_start(path, t_start), key=lambda start: abs(start - times[0]))
            whole = _near(times[0], start) and _near(times[-1], t_end)
            if self.times and whole:
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
