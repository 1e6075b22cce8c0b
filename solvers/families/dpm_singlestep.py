"""Singlestep DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095) of orders 1 to 3.

With the symbols of `exponential`, base = A(t, s) x - c_t psi_0(H) m_0, and points inside the step at
lambda_{s_j} = lambda_s + r_j h, where the model is evaluated at u_j:

    order 1    x_t = base    (DDIM)

    order 2    u_1 = A(s_1, s) x - c_{s_1} psi_0(r_1 H) m_0
               dpmsolver    x_t = base - c_t / (2 r_1) psi_0 (m_1 - m_0)
               taylor       x_t = base - c_t / r_1 psi_1 (m_1 - m_0)

    order 3    u_1 as above
               u_2 = A(s_2, s) x - c_{s_2} psi_0(r_2 H) m_0 - c_{s_2} r_2 / r_1 psi_1(r_2 H) (m_1 - m_0)
               dpmsolver    x_t = base - c_t / r_2 psi_1 (m_2 - m_0)
               taylor       x_t = base - c_t (psi_1 D1 + 2 psi_2 D2),  D1 tau + D2 tau^2 = m_j - m_0 at tau = r_j
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.budgets import agile_orders, fixed_orders, interior_ratios, outer_times
from fastsample.solvers.exponential import adams, prediction_named, step
from fastsample.solvers.families.dpm_multistep import rule_named
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register


def singlestep_schedule(
    path: Path,
    t_start: float,
    grid: Grid,
    nfe: int,
    *,
    order: Literal[1, 2, 3] = 2,
    mode: Literal["fast", "fixed"] = "fast",
    ratios: Literal["grid", "fixed"] = "grid",
) -> Schedule:
    """Outer times and the r_j of each step.

    mode: "fast" spends every evaluation, "fixed" makes floor(nfe / order) steps of one order.
    ratios: "grid" applies a grid that is uniform or quadratic in time again inside each step, as the official
    code does; otherwise, and with "fixed", the points are uniform in lambda: 1/2 and 1/3, 2/3. (Third order
    needs r_2 -> 2/3, which not every grid gives when it is applied to a short step.)
    """
    orders = agile_orders(nfe, order) if mode == "fast" else fixed_orders(nfe, order)
    times = outer_times(path, t_start, grid, orders)
    inner = grid if ratios == "grid" and grid.name in ("uniform", "quadratic") else Grid("logsnr")
    spans = zip(orders, pairwise(times), strict=True)
    return Schedule(times, {"interior": [interior_ratios(path, inner, p, s, t, path.lam) for p, (s, t) in spans]})


def _order(*, order: int, mode: str, **_: Any) -> int:
    return min(order, 2) if mode == "fast" else order


_COMMON = partial(
    Facts, order=_order, grids=("logsnr", "uniform", "quadratic"), flow_grid="sigmoid", scheduler=singlestep_schedule
)
_DATA = partial(_COMMON, coordinate="x0", paper="2211.01095")
_NOISE = partial(_COMMON, coordinate="eps", paper="2206.00927")


@register("dpm-solver-2", _NOISE(title="DPM-Solver-2", defaults={"prediction": "noise", "order": 2}))
@register("dpm-solver-3", _NOISE(title="DPM-Solver-3", defaults={"prediction": "noise", "order": 3}))
@register(
    "dpm-fast",
    _NOISE(
        title="DPM-Solver-fast",
        defaults={"prediction": "noise", "order": 3, "ratios": "fixed"},
        note="k-diffusion's name for `dpm-solver-3`, which it is.",
    ),
)
@register("dpmpp-2s", _DATA(title="DPM-Solver++(2S)", defaults={"order": 2}))
@register("dpmpp-3s", _DATA(title="DPM-Solver++(3S)", defaults={"order": 3}))
def dpm_solver(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    interior: Sequence[Sequence[float]],
    prediction: Literal["data", "noise"] = "data",
    solver_type: Literal["dpmsolver", "taylor"] = "dpmsolver",
) -> Any:
    """DPM-Solver(++) steps of order 1 + len(interior[i]); as many evaluations as the order.

    Order `order` with mode=fixed; with mode=fast and order 3 the lower orders of the last steps leave
    order 2 in the limit.
    """
    path, wanted, rule = denoiser.path, prediction_named(prediction), rule_named(solver_type)
    for (s, t), ratios in zip(pairwise(times), interior, strict=True):
        start = path.lam(s)
        values = [(start, denoiser.predict(x, s, wanted))]
        for r in ratios:
            lam = start + r * (path.lam(t) - start)
            u = path.t_of_lam(lam)
            values.append((lam, denoiser.predict(step(path, x, s, u, prediction, values, adams), u, wanted)))
        if len(values) == 3 and solver_type == "dpmsolver":
            x = step(path, x, s, t, prediction, [values[0], values[2]], adams)
        else:
            x = step(path, x, s, t, prediction, values, rule)
    return x
