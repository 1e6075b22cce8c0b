"""The Generalized Solver (arXiv 2510.17699): DPM-Solver++(3M) with a correction to each of its coefficients.

With X_j the data prediction, h the step in lambda, psi as in `exponential` at H = -h (phi_1 = psi_0, phi_2 = -psi_1 and
phi_3 = psi_2 of the paper), q the order of the step, m = 1 the newest,

    q = 1     x' = (sigma'/sigma + a_1) x - (alpha' phi_1 + c_1) X_1
    q = 2     ... - (alpha' phi_1 / 2 + c_2) D10 + a_2 x_2
    q >= 3    ... + (alpha' phi_2 + c_2) D1 - (alpha' phi_3 + c_3) D2 + sum_{m>=4} c_m X_m + sum_{2<=m<=q} a_m x_m

and D10, D1, D2 the differences of DPM-Solver++(3M) (`families.dpm_multistep`), whose official step this is where all
a and c are 0. The network is asked at t + xi, but alpha and sigma are of t:

    X = (x - sigma(t) eps(x, t + xi)) / alpha(t).

`theory=False` is the other form of the authors' code, two steps of a linear multistep method one upon the other,

    y = r x + C sum_m c_m X_m,    x' = r y + C sum_m a_m X_m,    r = sigma'/sigma,  C = -alpha' phi_1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser, Prediction
from fastsample.models.path import Path
from fastsample.solvers.exponential import psi
from fastsample.solvers.grids import Grid
from fastsample.solvers.plan import Plan
from fastsample.solvers.solver import get
from fastsample.solvers.table import Table, trace

__all__ = ["Corrections", "generalized", "gs_table", "gs_times"]


@dataclass(frozen=True)
class Corrections:
    """The numbers of a Generalized Solver of n steps.

    Attributes:
        xi: [n] what is added to the times of the evaluations.
        a, c: [order, n]; a[m - 1, i] is a_m of step i, of which those with m > i + 1 are never used. The order is n in
            training.
        theory: whether they are corrections to DPM-Solver++(3M), or a linear multistep method's own coefficients.
    """

    xi: np.ndarray
    a: np.ndarray
    c: np.ndarray
    theory: bool = True


def gs_times(theta: np.ndarray, first: float = 1.0, end: float = 1e-3) -> np.ndarray:
    """The times [n + 1] of n - 1 numbers, as the released code breaks the stick: from the data end.

    mu_k = 1e-5 + (1 - 2e-5) / (1 + exp(-theta_k)),  t_{n-k} = end + (first - end) (1 - prod_{j<=k} mu_j).
    """
    mu = 1e-5 + (1 - 2e-5) / (1 + np.exp(-np.asarray(theta, float)))
    inner = end + (first - end) * (1 - np.cumprod(mu))
    return np.array([first, *inner[::-1], end])


def gs_table(
    path: Path,
    own: Path,
    times: Sequence[float] | np.ndarray,
    numbers: Corrections,
    coordinate: Prediction = "eps",
) -> Table:
    """The table on a model's path of a Generalized Solver that steps over these times of `own`, a path of its own.

    Args:
        path: of the model; own: with the interval of the times. They may be one.
    """

    def solve(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
        return generalized(denoiser, x, times, numbers)

    steps = tuple(map(float, times))
    solver = replace(get("dpmpp-3m"), solve=solve)
    return trace(Plan(solver, path, own, Grid("learned"), len(steps) - 1, steps, {}, noise_start=True), coordinate)


def generalized(denoiser: Denoiser, x: Any, times: Sequence[float], numbers: Corrections) -> Any:
    """Sample with it; where alpha(t) is 0, at the start of a flow, X is the data prediction at t + xi itself."""
    path = denoiser.path
    points: list[Any] = []  # newest first, as all below
    data: list[Any] = []
    steps: list[float] = []
    for i, (s, t) in enumerate(pairwise(times)):
        moved, alpha, sigma = s + float(numbers.xi[i]), path.alpha(s), path.sigma(s)
        new = denoiser.x0(x, moved) if alpha <= 0 else (x - sigma * denoiser.eps(x, moved)) / alpha
        points, data, steps = [x, *points], [new, *data], [path.lam(t) - path.lam(s), *steps]
        q = min(i + 1, len(numbers.a))
        ratio, scale, a, c = path.sigma(t) / sigma, path.alpha(t), numbers.a[:q, i], numbers.c[:q, i]
        if numbers.theory:
            x = _corrected(points, data, steps, ratio, scale, [*map(float, a)], [*map(float, c)])
        else:
            scale *= -psi(0, -steps[0])
            for weights in (c, a):
                x = ratio * x
                for weight, value in zip(weights, data, strict=False):
                    x = x + (scale * float(weight)) * value
    return x


def _corrected(
    points: Sequence[Any], data: Sequence[Any], steps: Sequence[float], ratio: float, scale: float,
    a: Sequence[float], c: Sequence[float],
) -> Any:  # fmt: skip
    """A step of order len(a): ratio is sigma'/sigma, scale is alpha'."""
    q, h = len(a), -steps[0]
    x = (ratio + a[0]) * points[0] - (scale * psi(0, h) + c[0]) * data[0]
    for weight, value in zip(a[1:], points[1:], strict=False):
        x = x + weight * value
    if q == 1:
        return x
    r_0 = _ratio(steps[1], steps[0])
    newest = (data[0] - data[1]) / r_0
    if q == 2:
        return x - (scale * psi(0, h) / 2 + c[1]) * newest
    r_1 = _ratio(steps[2], steps[0])
    change = newest - (data[1] - data[2]) / r_1
    x = x - (scale * psi(1, h) - c[1]) * (newest + r_0 / (r_0 + r_1) * change)
    x = x - (scale * psi(2, h) + c[2]) * (change / (r_0 + r_1))
    for weight, value in zip(c[3:], data[3:], strict=False):
        x = x + weight * value
    return x


def _ratio(before: float, now: float) -> float:
    """Of two steps in lambda; an infinite one before says nothing."""
    return math.inf if math.isinf(before) else before / now
