"""Flow-Solver (arXiv 2411.07627): velocities of previous steps, in Taylor form, with a free corrector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.adams import adams_weights, combine
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Schedule, register

# integral of u^k over a step: exact, and with the factorial of the Taylor series counted twice
_MOMENTS = {"A": lambda k: 1 / (k + 1), "B": lambda k: 1 / math.factorial(k + 1)}


def _schedule(
    path: Path, t_start: float, grid: Grid, nfe: int, *, order: Literal[1, 2, 3, 4] = 2,
    corrector: Literal["none", "pec", "pec_final", "pece"] = "pec", warmup: Literal["ramp", "rk"] = "ramp",
    variant: Literal["A", "B"] = "A",
) -> Schedule:  # fmt: skip
    started = order - 1 if warmup == "rk" else 0  # steps by Runge-Kutta, four evaluations each
    count = nfe // 2 - started if corrector == "pece" else nfe - 3 * started - (corrector == "pec_final")
    if count < started:  # nothing but the start
        count = nfe // 4
    if count < 1:
        raise BudgetError(f"corrector={corrector}, warmup={warmup} needs a larger budget than {nfe}")
    options = {"order": order, "corrector": corrector, "warmup": warmup, "variant": variant}
    return Schedule(grid(path, count, t_start, path.t_data), options)


def _order(*, order: int, corrector: str, warmup: str, variant: str, **_: Any) -> int:
    corrected = corrector != "none"
    reached = order + corrected
    if warmup == "ramp":
        reached = min(reached, 2 + corrected)
    return min(reached, 2 if variant == "B" else 4)


@register(
    "flow-solver",
    Facts(
        title="Flow-Solver",
        paper="2411.07627",
        coordinate="velocity",
        order=_order,
        path="flow",
        singular_start=True,
        grids=("sigmoid", "uniform", "quadratic", "shift"),
        flow_grid="uniform",
        scheduler=_schedule,
        note="A public re-implementation counts a factorial twice (variant=B, at most second order).",
        variants=(
            {},
            {"corrector": "none"},
            {"order": 1, "corrector": "none"},
            {"order": 1},
            {"order": 3},
            {"order": 4, "corrector": "none"},
            {"order": 3, "corrector": "none", "warmup": "rk"},
            {"order": 4, "corrector": "none", "warmup": "rk"},
            {"corrector": "pec_final"},
            {"corrector": "pece"},
            {"order": 3, "warmup": "rk"},
            {"order": 3, "corrector": "none", "variant": "B"},
        ),
    ),
)
def flow_solver(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, order: int, corrector: str, warmup: str, variant: str
) -> Any:
    """Variable-step Adams-Bashforth on the velocity of the linear path, corrected by Adams-Moulton.

    The derivatives of the Taylor series about t_{n-1} come from p cached velocities; the truncated
    series then is x_{n-1} + integral of their interpolant, so

        x^_n = x_{n-1} + sum_j W_j v_j,        W_j = integral over the step of l_j
        x_n  = x_{n-1} + sum_j W'_j v_j        with v^_n = u(x^_n, t_n) as one node more

    corrector: none; pec keeps v^_n for the next step and leaves the last step uncorrected, so it is free;
    pec_final corrects the last step too (one evaluation more); pece evaluates again at the corrected point
    (two evaluations a step). On uniform grids pec of order p is none of order p + 1 with a better start.

    Order p, and p + 1 with a corrector. The ramp of orders 1, 2, ... at the start limits it to 2 (3 with a
    corrector); warmup=rk makes the first p - 1 steps by classical Runge-Kutta at four evaluations each.
    """
    moment = _MOMENTS[variant]
    cache = [(times[0], denoiser.velocity(x, times[0]))]  # newest first
    last = len(times) - 1

    def step(x: Any, s: float, t: float, known: Sequence[tuple[float, Any]]) -> Any:
        nodes, velocities = zip(*known, strict=True)
        return x + combine(adams_weights(nodes, s, t, moment), velocities)

    for n, (s, t) in enumerate(pairwise(times), start=1):
        fresh = None
        if warmup == "rk" and n < order:
            x = _runge_kutta_step(denoiser, x, s, t, cache[0][1])
        else:
            predicted = step(x, s, t, cache)
            if corrector in ("pec_final", "pece") or (corrector == "pec" and n < last):
                fresh = denoiser.velocity(predicted, t)
                x = step(x, s, t, [(t, fresh), *cache])
            else:
                x = predicted
        if n < last:
            if fresh is None or corrector == "pece":
                fresh = denoiser.velocity(x, t)
            cache = [(t, fresh), *cache][:order]
    return x


def _runge_kutta_step(denoiser: Denoiser, x: Any, s: float, t: float, k1: Any) -> Any:
    h, middle = t - s, (s + t) / 2
    k2 = denoiser.velocity(x + (h / 2) * k1, middle)
    k3 = denoiser.velocity(x + (h / 2) * k2, middle)
    k4 = denoiser.velocity(x + h * k3, t)
    return x + combine((h / 6, h / 3, h / 3, h / 6), (k1, k2, k3, k4))
