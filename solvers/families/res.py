"""RES, the refined exponential solver (arXiv 2308.02157): exponential Runge-Kutta in lambda on the data prediction.

With the nodes c_j in parts of the step h and phi_j = phi_j(-h), phi_{j,c} = phi_j(-c h), one step is
x_t = sigma_t / sigma_s x_s + alpha_t h sum_j b_j D_j:

    2S    b_2 = phi_2 / c_2, b_1 = phi_1 - b_2                        (DPM-Solver++(2S) of type taylor, r_1 = c_2)
    3S    gamma = (3 c_3^2 - 2 c_3) / (c_2 (2 - 3 c_2)),
          a_32 = gamma c_2 phi_{2,c_2} + c_3^2 / c_2 phi_{2,c_3}, a_31 = c_3 phi_{1,c_3} - a_32,
          b_3 = phi_2 / (gamma c_2 + c_3), b_2 = gamma b_3, b_1 = phi_1 - b_2 - b_3
    2M    2S with an older value for the second: c_2 = (lambda_{-1} - lambda_s) / h < 0   (DPM-Solver++(2M), taylor)
    3M    the b_j of 3S with two older values

The order condition (gamma c_2^2 + c_3^2) / (gamma c_2 + c_3) = 2/3 gives gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.exponential import Rule, adams, multistep, multistep_schedule, psi, step
from fastsample.solvers.families.dpm_multistep import dpm_solver_multistep
from fastsample.solvers.families.dpm_singlestep import dpm_solver
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register, steps

_RES = partial(Facts, paper="2308.02157", coordinate="x0", flow_grid="sigmoid", grids=("logsnr", "karras", "uniform"))
_CUBED = "The public code has 3 c3^3 for 3 c3^2 in gamma (official=true), which leaves second order where c3 is not 1."
_NODES = {"c2": (0.05, 1.0), "c3": (0.05, 1.0)}


def _gamma(c2: float, c3: float, official: bool) -> float:
    return (3 * c3 ** (3 if official else 2) - 2 * c3) / (c2 * (2 - 3 * c2))


def _rule(official: bool) -> Rule:
    """The weights of D_2 and D_3 over the nodes c_2, c_3; with one node those of 2S."""

    def rule(h: float, nodes: Sequence[float]) -> Sequence[float]:
        if len(nodes) < 2:
            return adams(h, nodes)
        gamma = _gamma(nodes[0], nodes[1], official)
        last = psi(1, h) / (gamma * nodes[0] + nodes[1])
        return [gamma * last, last]

    return rule


def _two_stages(path: Path, t_start: float, grid: Grid, nfe: int, *, c2: float = 0.5) -> Schedule:
    times = steps(2)(path, t_start, grid, nfe).times
    return Schedule(times, {"interior": [(c2,)] * (len(times) - 1)})


register(
    "res-2s",
    _RES(title="RES-2S", order=2, scheduler=_two_stages, defaults={"solver_type": "taylor"}, ranges={"c2": (0.05, 1)}),
)(dpm_solver)
register(
    "res-2m",
    _RES(
        title="RES-2M",
        order=2,
        scheduler=multistep_schedule,
        singular_start=True,
        defaults={"solver_type": "taylor", "lower_order_final": "never"},
    ),
)(dpm_solver_multistep)


def _order(*, official: bool, c3: float = -2.0, **_: Any) -> int:
    return 2 if official and c3 != 1 else 3


@register(
    "res-3s",
    _RES(
        title="RES-3S",
        order=_order,
        scheduler=steps(3),
        ranges=_NODES,
        variants=({}, {"c2": 0.4, "c3": 0.8}),
        note=_CUBED,
    ),
)
def res_3s(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, c2: float = 0.5, c3: float = 1.0, official: bool = False
) -> Any:
    """RES-3S with the nodes c2 and c3; third order, three evaluations a step. c2 = 2/3 and c2 = c3 have no weights."""
    path, gamma, rule = denoiser.path, _gamma(c2, c3, official), _rule(official)
    for s, t in pairwise(times):
        start, h = path.lam(s), path.lam(t) - path.lam(s)
        u2, u3 = path.t_of_lam(start + c2 * h), path.t_of_lam(start + c3 * h)
        values = [(start, denoiser.x0(x, s))]
        values.append((start + c2 * h, denoiser.x0(step(path, x, s, u2, "data", values, adams), u2)))
        second = gamma * psi(1, -c2 * h) + c3 / c2 * psi(1, -c3 * h)  # -h a_32
        inner = step(path, x, s, u3, "data", values, lambda h, nodes, second=second: [second])  # type: ignore[misc]
        values.append((start + c3 * h, denoiser.x0(inner, u3)))
        x = step(path, x, s, t, "data", values, lambda h, nodes: rule(h, (c2, c3)))
    return x


@register(
    "res-3m",
    _RES(
        title="RES-3M",
        order=_order,
        scheduler=multistep_schedule,
        singular_start=True,
        defaults={"order": 3, "lower_order_final": "never"},
        ranges={"order": (1, 3)},
        variants=({}, {"official": True}),
        note=_CUBED,
    ),
)
def res_3m(denoiser: Denoiser, x: Any, times: Sequence[float], *, orders: Sequence[int], official: bool = False) -> Any:
    """RES-3M: orders 1, 2, 3, 3, ...; one evaluation a step."""
    return multistep(denoiser, x, times, orders, "data", _rule(official))
