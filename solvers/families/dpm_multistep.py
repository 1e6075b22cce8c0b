"""Multistep DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095): 2M, 3M and SDE-2M.

With m_0 the newest value, m_1 and m_2 older ones, h_0 and h_1 the last two steps in lambda,
r_0 = h_0 / h, r_1 = h_1 / h, D10 = (m_0 - m_1) / r_0, D11 = (m_1 - m_2) / r_1 and the symbols of
`exponential`:

    2M             x_t = A x_s - c_t psi_0 m_0 - c_t psi_0 / 2 D10
    2M, taylor     x_t = A x_s - c_t psi_0 m_0 - c_t psi_1 D10
    3M             x_t = A x_s - c_t psi_0 m_0 - c_t psi_1 D1 - 2 c_t psi_2 D2,
                   D1 = D10 + r_0 / (r_0 + r_1) (D10 - D11),  D2 = (D10 - D11) / (r_0 + r_1)

that is, the interpolating polynomial of m under the exponential integral. DPM-Solver++(2M) in full, with the data
prediction D, is

    for s, t in pairs of neighbouring times:
        m_0 = D(x, s)
        h   = lambda(t) - lambda(s)
        r_0 = h_0 / h
        d   = (1 + 1 / (2 r_0)) m_0 - 1 / (2 r_0) m_1       in the first step, and the last below ten, m_0
        x   = sigma(t) / sigma(s) x - alpha(t) (e^-h - 1) d
        m_1, h_0 = m_0, h

which here is `multistep` with `adams_half`; the other members change the prediction or the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.exponential import Rule, adams, adams_half, multistep, multistep_schedule, psi
from fastsample.solvers.solver import Facts, register


def rule_named(solver_type: str) -> Rule:
    """The predictor of a `solver_type` of DPM-Solver: dpmsolver or taylor."""
    return adams if solver_type == "taylor" else adams_half(math.expm1)


def _order(*, order: int, official: bool, **_: Any) -> int:
    return min(order, 2) if official else order


_COMMON = partial(Facts, grids=("logsnr", "uniform", "quadratic"), flow_grid="sigmoid", scheduler=multistep_schedule)
_DATA = partial(_COMMON, coordinate="x0", paper="2211.01095", singular_start=True)
_NOISE = partial(_COMMON, coordinate="eps", paper="2206.00927")
_HALVED = "The official third-order update lacks a factor 2 at the second difference, which makes it second order."


@register("dpm-solver-2m", _NOISE(title="DPM-Solver(2M)", order=_order, defaults={"prediction": "noise"}))
@register(
    "dpm-solver-3m",
    _NOISE(title="DPM-Solver(3M)", order=_order, note=_HALVED, defaults={"prediction": "noise", "order": 3}),
)
@register(
    "dpmpp-2m",
    _DATA(title="DPM-Solver++(2M)", order=_order, variants=({}, {"solver_type": "taylor"}, {"corrector": True})),
)
@register(
    "dpmpp-3m",
    _DATA(
        title="DPM-Solver++(3M)", order=_order, note=_HALVED, defaults={"order": 3}, variants=({}, {"official": True})
    ),
)
def dpm_solver_multistep(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    orders: Sequence[int],
    prediction: Literal["data", "noise"] = "data",
    solver_type: Literal["dpmsolver", "taylor"] = "dpmsolver",
    corrector: bool = False,
    official: bool = False,
) -> Any:
    """DPM-Solver(++) of the given orders per step; one evaluation a step.

    Order `order`, where the first steps, of lower order, lie at so low a signal-to-noise ratio that m hardly
    changes; the lowered orders at the end (`lower_order_final`) cost accuracy in the limit, but only
    runs of less than ten steps have them. It starts at alpha = 0 with data prediction; the first two
    steps are then of first order. corrector: UniC of arXiv 2302.04867 on top.

    official: the published third-order step with psi_2 D2 in place of 2 psi_2 D2; second order.
    """
    rule = rule_named(solver_type)

    def published(h: float, nodes: Sequence[float]) -> Sequence[float]:
        return adams(h, nodes, [psi(1, h), psi(2, h)]) if len(nodes) == 2 else rule(h, nodes)

    predictor = published if official else rule
    return multistep(denoiser, x, times, orders, prediction, predictor, rule if corrector else None)


@register("dpmpp-sde-2m", _DATA(title="SDE-DPM-Solver++(2M)", order=1, stochastic=True))
def dpmpp_sde(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    orders: Sequence[int],
    noise: Callable[[int], Any],
    solver_type: Literal["dpmsolver", "taylor"] = "dpmsolver",
) -> Any:
    """SDE-DPM-Solver++ (arXiv 2211.01095, eq. 18): data prediction with H = -2h, and sigma_t sqrt(1 - e^-2h) noise.

    With order 1 it is ancestral sampling (DDPM). Weak order 2, strong order 1.
    """
    return multistep(denoiser, x, times, orders, "data", rule_named(solver_type), noise=noise)
