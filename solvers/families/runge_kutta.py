"""Explicit Runge-Kutta methods on the velocity of the probability-flow ODE, dx/dt = u(x, t).

They integrate on the linear path (CondOT), whatever path the model lives on: there the velocity of a
Gaussian path is bounded at both ends. On rectified flows that is the model's own ODE.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register, steps
from fastsample.solvers.tableau import Tableau

MIDPOINT = Tableau((0, 0.5), ((), (0.5,)), (0, 1))
HEUN = Tableau((0, 1), ((), (1,)), (0.5, 0.5))
BOSH3 = Tableau((0, 0.5, 0.75), ((), (0.5,), (0, 0.75)), (2 / 9, 1 / 3, 4 / 9))
RK4 = Tableau((0, 0.5, 0.5, 1), ((), (0.5,), (0, 0.5), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
RK4_38 = Tableau((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8))


def _explicit(tableau: Tableau, denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    for s, t in pairwise(times):
        h = t - s
        k: list[Any] = []
        for node, row in zip(tableau.nodes, tableau.rows, strict=True):
            point = x + sum((h * a) * slope for a, slope in zip(row, k, strict=True) if a) if k else x
            k.append(denoiser.velocity(point, s + node * h))
        x = x + sum((h * b) * slope for b, slope in zip(tableau.weights, k, strict=True) if b)
    return x


_FLOW = partial(Facts, coordinate="velocity", path="flow", singular_start=True, grids=("uniform", "quadratic", "shift"))
# On models of other paths the higher orders gain most from the NSR grid.
_HIGHER = partial(_FLOW, grids=("nsr", "uniform", "sigmoid"), flow_grid="uniform")


@register("euler", _FLOW(title="Euler", paper="2209.03003", order=1))
def euler(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """x' = x + h u(x, t). First order; one evaluation a step. On CondOT it is DDIM."""
    for s, t in pairwise(times):
        x = x + (t - s) * denoiser.velocity(x, s)
    return x


@register("midpoint", _HIGHER(title="Midpoint (RK2)", paper="2403.01329", order=2, scheduler=steps(2)))
def midpoint(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """x' = x + h u(x + h/2 u(x, t), t + h/2). Second order; two evaluations a step."""
    return _explicit(MIDPOINT, denoiser, x, times)


@register("heun", _HIGHER(title="Heun (RK2)", paper="2206.00364", order=2, scheduler=steps(2)))
def heun(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """Trapezoid with an Euler predictor. Second order; two evaluations a step."""
    return _explicit(HEUN, denoiser, x, times)


@register(
    "bosh3", _HIGHER(title="Bogacki-Shampine 3", paper="doi:10.1016/0893-9659(89)90079-7", order=3, scheduler=steps(3))
)
def bosh3(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """The third-order member of the Bogacki-Shampine pair with a fixed step; three evaluations a step."""
    return _explicit(BOSH3, denoiser, x, times)


@register("rk4", _HIGHER(title="Runge-Kutta 4", paper="2209.03003", order=4, scheduler=steps(4)))
def rk4(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """The classical tableau (weights 1/6, 1/3, 1/3, 1/6); four evaluations a step."""
    return _explicit(RK4, denoiser, x, times)


@register(
    "rk4-38",
    _HIGHER(
        title="Runge-Kutta 4 (3/8 rule)",
        paper="2209.03003",
        order=4,
        scheduler=steps(4),
        note="What torchdiffeq and flow_matching call rk4 is this 3/8-rule variant, not the classical method.",
    ),
)
def rk4_38(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """Kutta's 3/8 rule, the `rk4` of torchdiffeq; four evaluations a step."""
    return _explicit(RK4_38, denoiser, x, times)


def _shifted_unit_interval(path: Path, t_start: float, grid: Grid, nfe: int) -> Schedule:
    return Schedule(grid(path, nfe, 0.0, 1.0))


@register(
    "euler-rf",
    _FLOW(
        title="Euler of RectifiedFlow's code",
        paper="2209.03003",
        order=0,
        scheduler=_shifted_unit_interval,
        note="gnobitab/RectifiedFlow asks the network at 1e-3 + 0.999 t but steps by 1/N from t = 0 to 1.",
    ),
)
def euler_rf(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """Euler to t = 1 with every velocity taken 1e-3 (1 - t) too late: it reproduces published rows.

    The mismatch leaves an error of 1e-3 at any step count, so no order is claimed; `euler` has none.
    """
    for s, t in pairwise(times):
        x = x + (t - s) * denoiser.velocity(x, 1e-3 + (1 - 1e-3) * s)
    return x
