"""EVODiff (arXiv 2509.26096): two-step data prediction in sigma, with balance factors from the data predictions.

A step from s = n_{i-1} to t = n_i with r = n_{i-2}, m_0 and m_1 the data predictions kept of n_{i-1} and n_{i-2},
a = 1/t - 1/s, R = log(r/s) / log(s/t), S the logistic function, q(u, v) = <u, v> / <v, v> within [-2, 2]:

    X    = (t/s) x + t a m_0                                        (the first step)
    w    = (1 - ((t + n_N) / (n_0 + n_N))^2) / 2,   g = sqrt((t/s) / (s/r))
    D_1  = m_0 - ((1 - w) g + w q(m_0, m_1)) m_1 = m_0 - b_1 m_1
    x_p  = X + t a D_1 / (2 rho),  rho = S(|b_1| / 4) R within [R/4, 3R/2];     m_t = x0(x_p, t), which is kept
    D_2  = m_t - ((1 - w) g + w q(m_t, m_0)) m_0
    P, Q = D_1 / (R a), R D_2 / a;   eta = S(|q(Q + P, Q - P)| / 2) / 2
    B    = R (1 - eta) D_2 - (eta / R) D_1
    Z    = x_p - X - t a B / (2 rho),   z = |q(Z, D_1) / (a t)| - 1/2
    x_t  = X + t a B / (2 zeta),   zeta = S(z); of over 20 steps S(-z S(q(m_0, d) (2 - (t/s)^2))), d = (m_0 - m_1) / a

The last step with lower_order_final is x_t = X; in the official code, with c = t/s where that is less than 1/2 and
t/s - 1/2 elsewhere, it is

    x_t  = (1 - sqrt(t s)) X + t a (m_0 - (1 - sqrt(c) / 2) m_1) / 2.

The products are of each sample and channel. The factors are not 1 for short steps, which leaves the first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.samples import each, inner, quotient
from fastsample.solvers.solver import Facts, Schedule, register


def _schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, lower_order_final: bool = True) -> Schedule:
    """An evaluation a step, and one more at the end without lower_order_final."""
    steps = nfe if lower_order_final or nfe == 1 else nfe - 1
    if steps < 1:
        raise BudgetError(f"needs at least 1 evaluation, not {nfe}")
    return Schedule(grid(path, steps, t_start, path.t_data))


def _logistic(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _ratio(u: Any, v: Any) -> np.ndarray:
    """q(u, v) of each sample and, of images, channel."""
    kept = 2 if u.ndim > 2 else 1
    return np.clip(quotient(inner(u, v, kept), inner(v, v, kept)), -2, 2)


def _official_end(start: Any, m0: Any, m1: Any, s: float, t: float) -> Any:
    c = 1 - math.sqrt(t / s if t / s < 1 / 2 else t / s - 1 / 2) / 2
    return (1 - math.sqrt(t * s)) * start + ((1 - t / s) / 2) * (m0 - c * m1)


@register(
    "evodiff",
    Facts(
        title="EVODiff",
        paper="2509.26096",
        coordinate="x0",
        order=lambda *, lower_order_final, official, **_: 0 if lower_order_final and official else 1,
        path="edm",
        grids=("karras", "logsnr"),
        flow_grid="logsnr",
        nonlinear=True,
        scheduler=_schedule,
        variants=({}, {"lower_order_final": False}),
        note="The official last step has a factor 1 - sqrt(t s), which depends on the unit of sigma and keeps it from "
        "converging (official=true); ours is of first order.",
    ),
)
def evodiff(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, lower_order_final: bool = True, official: bool = False
) -> Any:
    """EVODiff; first order, one evaluation a step."""
    first, last, n = times[0], times[-1], len(times) - 1
    past = list[Any]()  # m, newest first
    for i, (s, t) in enumerate(pairwise(times), 1):
        if i <= 2:  # later ones were asked for at the predicted points
            past = [denoiser.x0(x, s), *past]
        m0, a = past[0], 1 / t - 1 / s
        start = (t / s) * x + (t * a) * m0
        if i == 1:
            x = start
            continue
        m1, ratio = past[1], t / s
        if i == n and lower_order_final:
            x = _official_end(start, m0, m1, s, t) if official else start
            continue
        r = times[i - 2]
        share, g = (1 - ((t + last) / (first + last)) ** 2) / 2, math.sqrt(ratio / (s / r))
        spans = math.log(r / s) / math.log(s / t)
        b1 = (1 - share) * g + share * _ratio(m0, m1)
        d1 = m0 - each(b1, x) * m1
        rho = np.clip(_logistic(np.abs(b1) / 4) * spans, spans / 4, 1.5 * spans)
        predicted = start + each(t * a / (2 * rho), x) * d1
        mt = denoiser.x0(predicted, t)
        d2 = mt - each((1 - share) * g + share * _ratio(mt, m0), x) * m0
        p, q = d1 / (spans * a), (spans / a) * d2
        eta = _logistic(np.abs(_ratio(q + p, q - p)) / 2) / 2
        both = each(spans * (1 - eta), x) * d2 - each(eta / spans, x) * d1
        rest = predicted - start - each(t * a / (2 * rho), x) * both
        z = np.abs(_ratio(rest, d1) / (a * t)) - 1 / 2
        if n > 20:
            z = -z * _logistic(_ratio(m0, (m0 - m1) / a) * (2 - ratio**2))
        x = start + each(t * a / (2 * _logistic(z)), x) * both
        past = [mt, m0]
    return x
