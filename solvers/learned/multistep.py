"""Parameterisations of multistep methods whose evaluations may be apart from their steps: GS, LD3, S4S.

Steps are by softmax gaps, as in `parameters`. An evaluation is at t_i + q_i (t_{i+1} - t_i), held in the path's
interval: an offset is a share of the step that begins there.

* `generalized_solver` (GS, arXiv 2510.17699): every correction of DPM-Solver++(3M), steps and evaluations.
* `decoupled_times` (LD3, arXiv 2405.15506): the base solver's coefficients at learned steps, and evaluations.
* `window` (S4S, arXiv 2502.17423, in the form of 2510.17699, table 1): free c_m in
  x' = (sigma'/sigma) x - alpha' phi_1 sum_m c_m X_m, with X the data prediction at its evaluation's time; with
  `alternating` (S4S-Alt) steps and evaluations too, all at once by one trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.exponential import psi
from fastsample.solvers.learned.gs import Corrections, generalized
from fastsample.solvers.learned.ld3 import decoupled
from fastsample.solvers.learned.parameters import (
    INSIDE,
    Parameters,
    checked,
    coordinate_of,
    gaps,
    monotone,
    unrolled,
)
from fastsample.solvers.plan import Plan
from fastsample.solvers.table import Table, trace

__all__ = ["decoupled_times", "generalized_solver", "window"]


def generalized_solver(plan: Plan) -> Parameters:
    """The Generalized Solver from a multistep plan's times: n (n + 3) - 1 numbers."""
    n, own = len(plan.times) - 1, plan.own
    used = np.triu_indices(n)  # a_m and c_m of step i with m <= i + 1
    first, last = plan.times[0], plan.times[-1]

    def table(theta: np.ndarray) -> Table:
        steps = np.append(monotone(theta[:n], first, last), last)
        a, c = np.zeros((n, n)), np.zeros((n, n))
        a[used], c[used] = np.split(theta[2 * n :], 2)
        numbers = Corrections(_moved(own, steps, theta[n : 2 * n]) - steps[:-1], a, c)
        return unrolled(plan, steps, lambda denoiser, x, times, **_: generalized(denoiser, x, times, numbers))

    start = np.concatenate([gaps(np.array(plan.times[:-1]), last), _offsets(plan), np.zeros(2 * len(used[0]))])
    told = "free numbers: n(n+1) corrections, n-1 inner times, n evaluation times"
    return Parameters(start, table, n * (n + 3) - 1, told, first=True)


def decoupled_times(plan: Plan) -> Parameters:
    """The plan's solver with steps and evaluations at times of their own: 2 n - 1 numbers at one evaluation a step."""
    times, own, coordinate = np.array(plan.times), plan.own, coordinate_of(plan.path)
    intervals = len(times) - 1
    if checked(trace(plan, coordinate)) != intervals:
        raise ValueError(f"{plan.solver.name} is no multistep method: its evaluations are not those of its steps")

    def table(theta: np.ndarray) -> Table:
        steps = np.append(monotone(theta[:intervals], times[0], times[-1]), times[-1])
        moved = _moved(own, steps, theta[intervals:])
        if own != plan.path:
            moved = np.array([plan.path.t_of_lam(own.lam(float(t))) for t in moved])
        return decoupled(plan, steps, moved, coordinate)

    start = np.concatenate([gaps(times[:-1], times[-1]), _offsets(plan)])
    told = "free numbers: n-1 inner times of the steps, n times of the evaluations"
    return Parameters(start, table, 2 * intervals - 1, told, first=True)


def window(plan: Plan, alternating: bool = False) -> Parameters:
    """A linear multistep method from a plan of one: n (n + 1) / 2 numbers, with `alternating` 2 n - 1 more."""
    n, own, times = len(plan.times) - 1, plan.own, np.array(plan.times)
    rows = np.tril_indices(n)
    fixed = np.concatenate([gaps(times[:-1], times[-1]), _offsets(plan) if alternating else np.zeros(n)])

    def table(theta: np.ndarray) -> Table:
        logits, offsets = np.split(theta[: 2 * n] if alternating else fixed, 2)
        steps = np.append(monotone(logits, times[0], times[-1]), times[-1])
        weights = np.zeros((n, n))
        weights[rows] = theta[2 * n :] if alternating else theta
        moved = _moved(own, steps, offsets)

        def solve(denoiser: Denoiser, x: Any, times: Sequence[float], **_: Any) -> Any:
            data: list[Any] = []
            for i, (s, t) in enumerate(pairwise(times)):
                data.append(denoiser.x0(x, float(moved[i])))
                ratio, scale = _step(denoiser.path, s, t)
                x = ratio * x
                for j, value in enumerate(data):
                    x = x + (scale * float(weights[i, j])) * value
            return x

        return unrolled(plan, steps, solve)

    start = _weights(plan)[rows]
    if not alternating:
        return Parameters(start, table, n * (n + 1) // 2, "free numbers: n(n+1)/2 coefficients")
    told = "free numbers: n(n+1)/2 coefficients, n-1 inner times of the steps, n times of the evaluations"
    return Parameters(np.concatenate([fixed, start]), table, n * (n + 1) // 2 + 2 * n - 1, told, first=True)


def _weights(plan: Plan) -> np.ndarray:
    """c [n, n] of each step of a linear multistep method.

    Raises:
        ValueError: for another method.
    """
    own = replace(plan, path=plan.own)
    table = trace(own, "x0")
    n = len(plan.times) - 1
    c = np.zeros((n, n))
    for i, (s, t) in enumerate(pairwise(plan.times)) if table.nfe == n else ():
        ratio, scale = _step(plan.own, s, t)
        c[i] = (table.b[i + 1] - ratio * table.b[i]) / scale
    ratios = [_step(plan.own, s, t)[0] for s, t in pairwise(plan.times)]
    if table.nfe != n or not np.allclose(table.a[1:], ratios * table.a[:-1], rtol=1e-9, atol=1e-12):
        raise ValueError(f"{plan.solver.name} is no multistep method of the data prediction")
    return c


def _step(path: Path, s: float, t: float) -> tuple[float, float]:
    """(sigma'/sigma, -alpha' phi_1) from s to t."""
    return path.sigma(t) / path.sigma(s), -path.alpha(t) * psi(0, path.lam(s) - path.lam(t))


def _offsets(plan: Plan) -> np.ndarray:
    start = np.zeros(len(plan.times) - 1)
    start[0] = INSIDE if plan.path.is_singular(plan.path.t_noise) else 0.0
    return start


def _moved(path: Path, steps: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The times of the evaluations."""
    low, high = sorted((path.t_noise, path.t_data))
    return np.clip(steps[:-1] + offsets * np.diff(steps), low, high)
