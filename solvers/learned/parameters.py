"""Parameterisations of coefficient tables: which tables a distillation can reach, and by how many numbers.

A parameterisation is a function from numbers theta to a `Table`. All of them are tables in the end, so one trainer
(`fastsample.solvers.learned.fit`) serves them all:

* `non_stationary` (BNS, arXiv 2403.01329): every entry is free; times by softmax gaps.
* `consistent` (differentiable solver search, arXiv 2505.21114): x_{i+1} = x_i + dt_i sum_j M_ij v_j with rows of M
  that sum to 1.
* `scale_time` (RK-Bespoke, arXiv 2310.19075): Runge-Kutta steps of s_r x(t_r), unrolled.
* `learned_times` (in the manner of LD3, arXiv 2405.15506): the base solver's coefficients at learned times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser, Prediction
from fastsample.models.path import Path
from fastsample.solvers.learned.bespoke import ScaleTime, rk1_bespoke, rk2_bespoke
from fastsample.solvers.solver import Plan
from fastsample.solvers.table import Table, trace

__all__ = [
    "INSIDE",
    "Parameters",
    "checked",
    "consistent",
    "coordinate_of",
    "gaps",
    "learned_times",
    "monotone",
    "non_stationary",
    "scale_time",
    "unrolled",
]

INSIDE = 0.3  # of the first step: where the first evaluation of a flow starts, which at noise alone tells nothing


@dataclass(frozen=True)
class Parameters:
    """A family of tables.

    Attributes:
        start: theta of the starting point.
        table: the table of a theta.
        free: numbers that are free; theta may hold one more, where only differences count.
        convention: how they are counted, in words.
        first: whether the time of the first evaluation is one of them.
    """

    start: np.ndarray
    table: Callable[[np.ndarray], Table]
    free: int
    convention: str
    first: bool = False

    def entries(self, theta: np.ndarray) -> np.ndarray:
        """`Table.entries`, after the time of the first evaluation if that is free."""
        table = self.table(theta)
        return np.r_[table.times[: int(self.first)], table.entries]

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives [entries, theta] of `entries`, by central differences in float64."""
        columns = []
        for k, value in enumerate(theta):
            if not np.isfinite(value):  # the gap between two times that coincide: they stay together
                columns.append(np.zeros_like(self.entries(theta)))
                continue
            step = np.zeros_like(theta)
            step[k] = 1e-6 * max(1.0, abs(value))
            columns.append((self.entries(theta + step) - self.entries(theta - step)) / (2 * step[k]))
        return np.stack(columns, axis=1)


def gaps(times: np.ndarray, end: float) -> np.ndarray:
    """Logits of the gaps between times; -inf where two coincide."""
    gaps = np.diff(times, append=end) / (end - times[0])
    with np.errstate(divide="ignore"):
        return np.log(np.where(gaps > 1e-12, gaps, 0.0))  # below is rounding


def monotone(logits: np.ndarray, first: float, end: float) -> np.ndarray:
    """first + (end - first) sum_{k<i} softmax(logits)_k, i = 0..n-1: monotone for every logits [n]."""
    gaps = np.exp(logits - logits.max())
    return first + (end - first) * np.concatenate([[0.0], np.cumsum(gaps / gaps.sum())[:-1]])


def non_stationary(initial: Table, inside: float | None = None) -> Parameters:
    """BNS: all a_i, b_ij and the inner times of a table, starting from `initial`; its first point is kept.

    n (n + 5) / 2 - 1 numbers: n of a, n (n + 1) / 2 of b, n - 1 times.

    Args:
        inside: where the first evaluation starts, as a share of the way to the second, if its time is free too.

    Raises:
        ValueError: for the table of a stochastic solver, or one whose times go back.
    """
    n, rows, first = checked(initial), np.tril_indices(initial.nfe), initial.times[0]
    times = initial.times
    if inside is not None:  # a gap before it
        times = np.r_[first, first + inside * (np.append(times, initial.end)[1] - first), times[1:]]
    m = len(times)

    def table(theta: np.ndarray) -> Table:
        a, b = initial.a.copy(), np.zeros_like(initial.b)
        a[1:], b[1:][rows] = theta[m : m + n], theta[m + n :]
        return replace(initial, times=monotone(theta[:m], first, initial.end)[m - n :], a=a, b=b)

    start = np.concatenate([gaps(times, initial.end), initial.a[1:], initial.b[1:][rows]])
    told = f"free numbers: n of a, n(n+1)/2 of b, {'n' if m > n else 'n-1 inner'} times"
    return Parameters(start, table, n * (n + 3) // 2 + m - 1, told, first=m > n)


def consistent(plan: Plan) -> Parameters:
    """Differentiable solver search on the plan's integration path, starting from Euler's method at the plan's times.

    x_{i+1} = x_i + dt_i sum_j M_ij v_j with sum_j M_ij = 1; n (n + 1) / 2 - 1 numbers.
    """
    times, n = np.array(plan.times), len(plan.times) - 1
    rows = np.tril_indices(n, -1)

    def table(theta: np.ndarray) -> Table:
        nodes = np.append(monotone(theta[:n], times[0], times[-1]), times[-1])
        weights = np.zeros((n, n))
        weights[rows] = theta[n:]
        weights[np.diag_indices(n)] = 1 - weights.sum(1)
        steps = np.diff(nodes)[:, None] * weights

        def solve(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
            f: list[Any] = []
            for i, t in enumerate(times[:-1]):
                f.append(denoiser.velocity(x, t))
                x = x + sum((float(steps[i, j]) * f[j] for j in range(1, i + 1)), float(steps[i, 0]) * f[0])
            return x

        return unrolled(plan, nodes, solve)

    start = np.concatenate([gaps(times[:-1], times[-1]), np.zeros(len(rows[0]))])
    return Parameters(start, table, n * (n + 1) // 2 - 1, "free numbers: n(n-1)/2 weights, n-1 inner times")


def scale_time(plan: Plan, stages: int) -> Parameters:
    """RK-Bespoke on the plan's integration path: `stages` 1 (Euler, 4 n - 1 numbers) or 2 (midpoint, 8 m - 1, n = 2 m).

    Times by softmax gaps, t' and s by their logarithms, s' free, s_0 = 1. It starts from the base method at the
    plan's times.

    Args:
        plan: of `euler` for one stage, of `midpoint` for two.
    """
    outer = np.array(plan.times)
    first, end, m = outer[0], outer[-1], len(outer) - 1
    inner = np.arange(stages) / stages
    start = np.append((outer[:-1, None] + np.diff(outer)[:, None] * inner).ravel(), end)
    nfe, step = stages * m, (rk1_bespoke, rk2_bespoke)[stages - 1]

    def table(theta: np.ndarray) -> Table:
        logits, log_dt, log_s, d_s = np.split(theta, 4)
        nodes = np.append(monotone(logits, first, end), end)
        with np.errstate(over="ignore"):  # a trial step may be far out; it is refused by its error
            scales = np.exp(log_s), (end - first) * np.exp(log_dt)
        curve = ScaleTime(nodes.tolist(), [1.0, *scales[0]], scales[1].tolist(), d_s.tolist())
        return unrolled(plan, nodes, lambda denoiser, x, times: step(denoiser, x, curve))

    log_dt = np.repeat(np.log(m * np.diff(outer) / (end - first)), stages)
    theta = np.concatenate([gaps(start[:-1], end), log_dt, np.zeros(2 * nfe)])
    return Parameters(theta, table, 4 * nfe - 1, "free numbers: n-1 inner times, n of t', n of s, n of s', at n nodes")


def learned_times(plan: Plan) -> Parameters:
    """The plan's solver at other outer times: one number for each inner one."""
    times = np.array(plan.times)

    def table(theta: np.ndarray) -> Table:
        return unrolled(plan, np.append(monotone(theta, times[0], times[-1]), times[-1]), plan.solver.solve)

    checked(table(start := gaps(times[:-1], times[-1])))
    return Parameters(start, table, len(times) - 2, "free numbers: the inner times of the grid")


def coordinate_of(path: Path) -> Prediction:
    """The prediction in which tables of a path are learned: bounded from its noise end to its data end."""
    return "velocity" if path.alpha(path.t_noise) <= 0 and path.t_data > path.t_noise else "x0"


def unrolled(plan: Plan, times: np.ndarray, solve: Callable[..., Any]) -> Table:
    """The table of a solve function on the plan's path, at these outer times."""
    changed = replace(plan, solver=replace(plan.solver, solve=solve), times=tuple(times.tolist()))
    return trace(changed, coordinate_of(plan.path))


def checked(initial: Table) -> int:
    if initial.w.size:
        raise ValueError("a stochastic solver cannot be distilled: its result depends on more than the first noise")
    if (np.diff(initial.times, append=initial.end) / (initial.end - initial.times[0]) < -1e-12).any():
        raise ValueError("this solver's times go back and forth: it cannot start a distillation")
    return initial.nfe
