"""DPM-Solver-v3 (arXiv 2310.13268): exponential integrators of a model's own statistics l, s and b.

With f = (sigma eps - l x) / alpha = (1 - l) x / alpha - x0 and, relative to the start s of a step and with the
integrals of `found.statistics`,

    g     = e^-(S - S_s) f - (B - B_s)
    A     = e^-(L_t - L_s)
    x_t   = alpha_t A ( x_s / alpha_s - E_0 g_s - C - sum_k E_k g^(k) ),     k = 1 .. q - 1

where the derivatives g^(k) at s come from the values at q - 1 further points: by the polynomial through all of them,
or (pseudo order) each by the divided difference of the first k + 1. l, s and b make the first derivative of g along a
trajectory small in the mean. l = 1, s = b = 0 is DPM-Solver++, l = b = 0, s = -1 DPM-Solver.

All products are of coordinates: with statistics of each there is no table of numbers, and the solver is run as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.budgets import exact_times
from fastsample.solvers.found.statistics import GAUSS, TRAPEZOID, Rule, Statistics, constant
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register

_INTERVALS = 120  # of the points of trivial statistics, where the official rule needs some


def _schedule(
    path: Path,
    t_start: float,
    grid: Grid,
    nfe: int,
    *,
    found: Statistics | None,
    order: Literal[1, 2, 3] = 3,
    lower_order_final: bool = True,
    statistics: Literal["coordinate", "channel", "scalar", "data", "noise"] = "coordinate",
    official: bool = False,
) -> Schedule:
    """One evaluation a step; the order rises from 1, and with lower_order_final falls to 1 again.

    statistics: those found for the model, of each coordinate or as a mean; or trivial ones, of data or noise
    prediction. Without a model they are those of data prediction. official: times are rounded to the points of the
    statistics.
    """
    times = exact_times(path, t_start, grid, nfe)
    first, last = path.lam(times[0]), path.lam(times[-1])
    if statistics in ("data", "noise") or found is None:
        points = np.linspace(first, last, _INTERVALS + 1) if official else (0.0,)
        found = constant("noise" if statistics == "noise" else "data", points)
    else:
        found = found.averaged(statistics)
        if not found.covers(first, last):
            raise ValueError(
                f"its statistics reach from lambda {found.lam[0]:.4g} to {found.lam[-1]:.4g}, and this run from "
                f"{first:.4g} to {last:.4g}"
            )
    if official:
        times = tuple(path.t_of_lam(found.lam[found.index(path.lam(t))]) for t in times)
    orders = [min(i, order, nfe + 1 - i if lower_order_final else order) for i in range(1, nfe + 1)]
    return Schedule(times, {"orders": orders, "found": found})


def _order(*, order: int, lower_order_final: bool, pseudo: bool, official: bool, **_: Any) -> int:
    return 0 if official else min(order, 2) if lower_order_final or pseudo else order


@register(
    "dpm-solver-v3",
    Facts(
        title="DPM-Solver-v3",
        paper="2310.13268",
        coordinate="x0",
        order=_order,
        grids=("logsnr", "uniform", "quadratic"),
        flow_grid="sigmoid",
        scheduler=_schedule,
        trained_on="statistics",
        variants=(
            {},
            {"lower_order_final": False},
            {"order": 2, "corrector": True},
            {"order": 1, "corrector": True, "pseudo_corrector": True},
            {"corrector": True, "pseudo_corrector": True, "pseudo": True},
            {"statistics": "noise"},
        ),
        note="The official code rounds times to the points of the statistics, and integrates by the trapezoidal rule "
        "on them (official=true), which is of no order where these stay.",
    ),
)
def dpm_solver_v3(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    orders: Sequence[int],
    found: Statistics,
    pseudo: bool = False,
    corrector: bool = False,
    pseudo_corrector: bool = False,
    official: bool = False,
) -> Any:
    """DPM-Solver-v3 of the given orders per step; one evaluation a step.

    corrector: each step but the last is done again with the value at its end, which is kept; it needs an order of 2, or
    pseudo_corrector, whose order is one more than the predictor's. pseudo: the predictor's derivatives are divided
    differences.
    """
    path, rule = denoiser.path, TRAPEZOID if official else GAUSS
    past: list[tuple[float, Any]] = []  # (lambda, f), newest first
    before = x
    for i, (s, t) in enumerate(pairwise(times)):
        lam = path.lam(s)
        rest = _like(
            x, (1 - found.at("l", np.array(lam))) / path.alpha(s)
        )  # 0 at the noise end, where x / alpha is huge
        now = lam, rest * x - denoiser.x0(x, s)
        points = orders[i - 1] + pseudo_corrector if i else 1
        if corrector and points > 1:
            again = [past[0], now, *past[1:]][:points]
            x = _step(path, found, rule, before, times[i - 1], s, again, pseudo_corrector)
        past, before = [now, *past][:3], x
        x = _step(path, found, rule, x, s, t, past[: orders[i]], pseudo)
    return x


def _step(
    path: Path, found: Statistics, rule: Rule, x: Any, s: float, t: float, values: list[tuple[float, Any]], pseudo: bool
) -> Any:
    """x at t from x at s; `values` are (lambda, f), that at s first."""
    (start, f), *others = values
    span = found.span(start, path.lam(t), len(others), rule)
    scale = path.alpha(t) * np.exp(-span.l)
    # E_k of each derivative, gathered for each value that it is a combination of.
    weights = (
        np.tensordot(_derivatives([lam - start for lam, _ in others], pseudo), np.stack(span.e[1:]), ([0], [0]))
        if others
        else [0.0]
    )
    result = _like(x, scale / path.alpha(s)) * x - _like(x, scale * (span.e[0] + weights[0])) * f
    constant_part = scale * span.c
    for weight, (lam, value) in zip(weights[1:], others, strict=True):
        if lam > start:
            between = found.span(start, lam, rule=rule)
            turned, shift = np.exp(-between.s), between.b
        else:
            between = found.span(lam, start, rule=rule)
            turned, shift = np.exp(between.s), -between.b * np.exp(between.s)
        result = result - _like(x, scale * weight * turned) * value
        constant_part = constant_part - scale * weight * shift
    return result - _like(x, constant_part) if np.any(constant_part) else result


def _derivatives(d: Sequence[float], pseudo: bool) -> np.ndarray:
    """[len(d), 1 + len(d)]: the derivatives of g at 0 as combinations of the values of g at 0 and at the points d."""
    n = len(d)
    if pseudo:
        places, table = [0.0, *d], np.eye(n + 1)
        rows = []
        for k in range(1, n + 1):
            table = (table[1:] - table[:-1]) / (np.array(places[k:]) - np.array(places[:-k]))[:, None]
            rows.append(math.factorial(k) * table[0])
    else:
        powers = np.array([[one**p / math.factorial(p) for p in range(1, n + 1)] for one in d])
        inverse = np.linalg.inv(powers)
        rows = [np.r_[-row.sum(), row] for row in inverse]
    return np.array(rows)


def _like(x: Any, values: Any) -> Any:
    """Coefficients as what x can be multiplied with: a number, or a tensor for its coordinates."""
    values = np.asarray(values)
    if values.ndim == 0:
        return float(values)
    return x.new_tensor(values) if hasattr(x, "new_tensor") else values
