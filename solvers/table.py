"""Coefficient tables: a fixed-grid solver, unrolled.

A solver is linear in x_T and in what the denoiser returns, so running it on symbols gives one row
per evaluation: the time t_i and the coefficients of the point at which the model is called,

    x_i = a_i x_T + sum_{j<i} b_ij f_j + sum_k w_ik z_k,      f_i = prediction(x_i, t_i),

and a last row for the result (z_k is the noise of stochastic solvers). This is the
non-stationary family of arXiv 2403.01329, eq. 11. `trace` makes a table, `play` runs one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser, Prediction, convert
from fastsample.models.path import Path
from fastsample.solvers.solver import Plan

__all__ = ["Linear", "Table", "play", "trace", "trace_function"]


class Linear:
    """A vector known only by its coefficients over symbols: ("x",), ("f", i), ("z", k)."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[str, int], float]) -> None:
        self.terms = terms

    def __add__(self, other: Linear | float) -> Linear:
        if not isinstance(other, Linear):
            if other == 0:  # lets sum() start
                return self
            raise TypeError(f"a solver may only add vectors, not {other!r}")
        terms = dict(self.terms)
        for key, value in other.terms.items():
            terms[key] = terms.get(key, 0.0) + value
        return Linear(terms)

    __radd__ = __add__

    def __mul__(self, factor: float) -> Linear:
        return Linear({key: float(factor) * value for key, value in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> Linear:
        return self * (1.0 / factor)

    def __neg__(self) -> Linear:
        return self * -1.0

    def __sub__(self, other: Linear) -> Linear:
        return self + other * -1.0


class _Recorder(Denoiser):
    """Answers with a new symbol for each evaluation and keeps the point it was called at."""

    def __init__(self, path: Path, coordinate: Prediction) -> None:
        super().__init__(path)
        self.coordinate = coordinate
        self.rows: list[tuple[float, Linear]] = []

    def _combine(self, x: Linear, t: float, p: float, r: float) -> Linear:
        c_x, c_f = convert(self.path, t, self.coordinate, (p, r))
        symbol = Linear({("f", len(self.rows)): 1.0})
        self.rows.append((t, x))
        return c_f * symbol if c_x == 0 else c_x * x + c_f * symbol


@dataclass(frozen=True, eq=False)
class Table:
    """A solver as numbers.

    Attributes:
        coordinate: prediction that the f_j are.
        times: [n] evaluation times on the model's path; end: the time of the result, that of clean data for a data
            prediction.
        a: [n + 1] coefficients of x_T; the last is the result's.
        b: [n + 1, n] coefficients of f_j, strictly lower triangular but for the last row.
        w: [n + 1, m] coefficients of the noises of a stochastic solver; m = 0 otherwise.
    """

    coordinate: Prediction
    times: np.ndarray
    a: np.ndarray
    b: np.ndarray
    w: np.ndarray
    end: float

    @property
    def nfe(self) -> int:
        """Evaluations it makes: its rows less the result's."""
        return len(self.times)

    @property
    def entries(self) -> np.ndarray:
        """All numbers but those of the first point: for row i = 1..n a_i, b_i0 .. b_i(i-1) and, if i < n, t_i."""
        rows = (np.r_[self.a[i], self.b[i, :i], self.times[i : i + 1]] for i in range(1, self.nfe + 1))
        return np.concatenate(list(rows))


def trace(plan: Plan, coordinate: Prediction | None = None) -> Table:
    """Unroll a plan into its table, in the given coordinate or in the solver's own.

    Raises:
        ValueError: for a plan that has none.
        ZeroDivisionError: where the coordinate is singular (eps at alpha = 0).
    """
    if plan.solver.adaptive:
        raise ValueError(f"solver {plan.solver.name} is adaptive: it has no coefficient table")
    if plan.solver.nonlinear:
        raise ValueError(f"the coefficients of solver {plan.solver.name} depend on the sample: it has no table of them")
    if not plan.tabled:
        raise ValueError(
            f"solver {plan.solver.name} has coefficients for each coordinate, and so no coefficient table; with "
            "statistics=scalar it has one"
        )
    return trace_function(plan.path, coordinate or plan.solver.coordinate, plan, plan.end)


def trace_function(path: Path, coordinate: Prediction, solve: Callable[..., Any], end: float) -> Table:
    """The table of `solve(denoiser, x, noise)`, a fixed sequence of vector operations on a model's path.

    `end` is the time of its result.
    """
    recorder = _Recorder(path, coordinate)
    noises: set[int] = set()

    def noise(index: int) -> Linear:
        noises.add(index)
        return Linear({("z", index): 1.0})

    result = solve(recorder, Linear({("x", 0): 1.0}), noise)
    n, m = len(recorder.rows), max(noises, default=-1) + 1
    a, b, w = np.zeros(n + 1), np.zeros((n + 1, n)), np.zeros((n + 1, m))
    for i, point in enumerate([*(x for _, x in recorder.rows), result]):
        for (kind, j), value in point.terms.items():
            if kind == "x":
                a[i] = value
            else:
                (b if kind == "f" else w)[i, j] = value
    return Table(coordinate, np.array([t for t, _ in recorder.rows]), a, b, w, end)


def play(table: Table, denoiser: Denoiser, x: Any, noise: Callable[[int], Any] | None = None) -> Any:
    """Run a table on a model: the numbers of the solver it came from, up to rounding."""
    f: list[Any] = []
    for i in range(table.nfe + 1):
        point = float(table.a[i]) * x
        for j, value in enumerate(f):
            if table.b[i, j] != 0:
                point = point + float(table.b[i, j]) * value
        for k in np.flatnonzero(table.w[i]):
            if noise is None:
                raise ValueError("this table belongs to a stochastic solver: it needs noise")
            point = point + float(table.w[i, k]) * noise(int(k))
        if i < table.nfe:
            f.append(denoiser.predict(point, float(table.times[i]), table.coordinate))
    return point
