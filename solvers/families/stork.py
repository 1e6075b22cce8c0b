"""STORK (arXiv 2505.24210): a stabilised Runge-Kutta method on a Taylor model of the velocity in time.

Between two evaluations s sub-steps of RKG2 (STORK-2) or ROCK4 (STORK-4) are made on v(t) = v_i + (t - t_i) v'_i +
(t - t_i)^2 / 2 v''_i, whose derivatives are differences of the last three evaluations. As the model does not depend on
x, a step of length h on a flow is

    x_{i+1} = x_i + h (W_0 v_i + W_1 h v'_i + W_2 h^2 / 2 v''_i),    W the method's moments of 1, c and c^2,

which are (1, 1/2, 1/3) for ROCK4: a linear multistep method. On noise predictions the model is of eps, and
the sub-steps integrate dx/dt = alpha' / alpha (x - eps / sigma).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import BudgetError, Grid, GridError
from fastsample.solvers.rock4 import rock4_step
from fastsample.solvers.solver import Facts, Schedule, register, steps


def _powers(c: float) -> np.ndarray:
    return np.array([1.0, c, c * c])


@cache
def _moments(order: int, s: int, official: bool) -> tuple[float, ...]:
    """W: what s sub-steps make of the integrals from 0 to 1 of 1, c and c^2."""
    if order == 4:
        found = rock4_step(lambda c, _: _powers(c), np.zeros(3), 1.0, s, official)
        return tuple(found.tolist())
    b = [1.0, 1 / 3, *(4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3)) for j in range(2, s + 1))]
    w = 6 / ((s + 4) * (s - 1))
    before, y = np.zeros(3), w * _powers(0.0)
    for j in range(2, s + 1):
        if official:  # the abscissae of RKL2
            c = 4 / 3 / (s * s + s - 2) if j == 2 else ((j - 1) ** 2 + j - 3) / (s * s + s - 2)
        else:
            c = w if j == 2 else (j - 2) * (j + 3) / ((s - 1) * (s + 4))
        mu, nu = (2 * j + 1) * b[j] / (j * b[j - 1]), -(j + 1) * b[j] / (j * b[j - 2])
        g = -mu * w * (1 - j * (j + 1) * b[j - 1] / 2)
        before, y = y, mu * y + nu * before + mu * w * _powers(c) + g * _powers(0.0)
    return tuple(y.tolist())


def _order(*, order: int, official: bool, **_: Any) -> int:
    return {2: 1, 4: 0}[order] if official else 2


@register(
    "stork",
    Facts(
        title="STORK",
        paper="2505.24210",
        coordinate="velocity",
        order=_order,
        path="flow",
        singular_start=True,
        grids=("uniform", "shift"),
        scheduler=steps(extra=1),
        ranges={"s": (2, 50)},
        variants=({}, {"order": 2}, {"order": 2, "s": 9}, {"official": True}, {"order": 2, "official": True}),
        note="Officially STORK-2 has the abscissae of another method and STORK-4 starts its recurrence with its states "
        "exchanged (official=true): first order, and none.",
    ),
)
def stork(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    order: Literal[2, 4] = 4,
    s: int = 50,
    official: bool = False,
) -> Any:
    """STORK on the velocity of the linear path; one evaluation a step, and one more in the middle of the first.

    Second order: the start-up steps limit STORK-4, whose own steps are of third order on equal steps. v' is the
    difference of equal steps on every grid.
    """
    one, half, third = _moments(order, s, official)
    v, h = list[Any](), list[float]()  # newest first
    for i, (now, t) in enumerate(pairwise(times)):
        v, h = [denoiser.velocity(x, now), *v][:3], [t - now, *h][:3]
        if i == 0:
            middle = x + (h[0] / 2) * v[0]
            x = middle + h[0] * (0.75 * denoiser.velocity(middle, now + h[0] / 2) - 0.25 * v[0])
        elif i == 1:
            bend = h[0] * h[0] / (2 * h[1])
            x = x + (h[0] + bend) * v[0] - bend * v[1]
        else:
            first = (1 / (2 * h[1])) * (3 * v[0] - 4 * v[1] + v[2])
            second = h[1] * v[2] - (h[1] + h[2]) * v[1] + h[2] * v[0]
            second = (2 / (h[1] * h[2] * (h[1] + h[2]))) * second
            x = x + h[0] * (one * v[0] + (half * h[0]) * first + (third * h[0] * h[0] / 2) * second)
    return x


def _own_times(path: Path, t_start: float, grid: Grid, nfe: int) -> Schedule:
    """1 - 1/N, 1 - 2/N, ..., 1/N in parts of the path's time, and its end; N + 1 evaluations."""
    if str(grid) != "uniform":
        raise GridError("its times are its own uniform ones: leave the grid out")
    n = nfe - 1
    if n < 3:
        raise BudgetError(f"needs at least 4 evaluations, not {nfe}")
    times = [t_start * (n - 1 - k) / n for k in range(n - 1)]
    if times[-1] <= path.t_data:
        raise BudgetError(f"{n} steps are too short for an end at t = {path.t_data:g}")
    return Schedule((*times, path.t_data))


@register(
    "stork-noise",
    Facts(
        title="STORK-4 on noise predictions",
        paper="2505.24210",
        coordinate="eps",
        order=lambda *, official, **_: 0 if official else 1,
        path="vp-linear",
        grids=("uniform",),
        scheduler=_own_times,
        ranges={"s": (2, 50)},
        variants=({}, {"official": True}),
        note="Officially the recurrence starts with its states exchanged (official=true) and does not converge; the "
        "published run ends with x - sigma eps.",
    ),
)
def stork_noise(denoiser: Denoiser, x: Any, times: Sequence[float], *, s: int = 50, official: bool = False) -> Any:
    """STORK-4 on the VP path with linear beta; one evaluation a step, and three more in the first.

    It starts one step late, at 1 - 1/N. An older value keeps its place in the history, and so its distance is taken
    for a whole step, when it was half of one. Second order while the steps are longer than the end's time; the last
    step, to an end nearer to the data, leaves first order.
    """
    path = denoiser.path

    def slope(t: float, y: Any, e: Any) -> Any:
        return (path.d_alpha(t) / path.alpha(t)) * (y - (1 / path.sigma(t)) * e)

    def advance(y: Any, now: float, t: float, derivatives: Sequence[Any]) -> Any:
        def modelled(c: float, state: Any) -> Any:
            u = c * (t - now)
            value = sum(factor * d for factor, d in zip((1, u, u * u / 2, u**3 / 6), derivatives, strict=False))
            return slope(now + u, state, value)

        return rock4_step(modelled, y, t - now, s, official)

    first, second, *_ = times
    d = first - second
    e = [denoiser.eps(x, first)]  # newest first
    f = slope(first, x, e[0])
    x_m = x - (d / 2) * f
    e_m = denoiser.eps(x_m, first - d / 2)
    x_p = x_m - (0.75 * d) * slope(first - d / 2, x_m, e_m) + (0.25 * d) * f
    e_p = denoiser.eps(x_p, second)
    bends = (1 / d) * (3 * e[0] - 4 * e_m + e_p), (4 / (d * d)) * (e[0] - 2 * e_m + e_p)
    x, e = advance(x, first, second, (e[0], *bends)), [e_m, e[0]]
    slopes: tuple[Any, ...]
    for i, (now, t) in enumerate(pairwise(times[1:])):
        e = [denoiser.eps(x, now), *e][:4]
        k = d / 2 if i == 0 else d
        if i < 2:
            slopes = (1 / (2 * k)) * (-3 * e[0] + 4 * e[1] - e[2]), (1 / (k * k)) * (e[0] - 2 * e[1] + e[2])
        else:
            slopes = (
                (1 / (6 * k)) * (2 * e[3] - 9 * e[2] + 18 * e[1] - 11 * e[0]),
                (1 / (k * k)) * (2 * e[0] - 5 * e[1] + 4 * e[2] - e[3]),
                (1 / k**3) * (e[3] - 3 * e[2] + 3 * e[1] - e[0]),
            )
        x = advance(x, now, t, (e[0], *slopes))
    return x
