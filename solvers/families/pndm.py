"""PNDM and its descendants (arXiv 2202.09778): Adams-Bashforth weights on the noise prediction.

F-PNDM and S-PNDM put the weighted eps into a DDIM step; iPNDM (arXiv 2204.13902) and iPNDM-v take
sigma = NSR as the variable, where the DDIM step is x + (sigma' - sigma) eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import DiscreteVP, Path
from fastsample.solvers.adams import adams_weights, combine, equal_weights, integrate, multistep
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Schedule, register


def _place(path: Path, official: bool, t: float) -> float:
    """The time whose alpha and sigma stand for t.

    The official code truncates a half-integer index and reads its table of abar one entry late, so the
    run ends at abar_0.

    Raises:
        ValueError: for official on a path without a table.
    """
    if not official:
        return t
    if not isinstance(path, DiscreteVP):
        raise ValueError("official=true reads a table of betas: it needs a discrete-time model")
    return (math.trunc(round(t * len(path.betas) - 1, 6)) + 2) / len(path.betas)


def _transfer(path: Path, official: bool) -> Callable[[Any, Any, float, float], Any]:
    """phi(x, e, s, t), the DDIM step (eq. 11)."""

    def step(x: Any, e: Any, s: float, t: float) -> Any:
        s, t = _place(path, official, s), _place(path, official, t)
        ratio = path.alpha(t) / path.alpha(s)
        return ratio * x + (path.sigma(t) - ratio * path.sigma(s)) * e

    return step


def _f_pndm_schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, official: bool = False) -> Schedule:
    # The first three steps cost four evaluations.
    count = nfe - 9 if nfe >= 12 else nfe // 4
    if count < 1:
        raise BudgetError(f"needs at least 4 evaluations, not {nfe}")
    return _schedule(path, grid(path, count, t_start, path.t_data), official)


def _s_pndm_schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, official: bool = False) -> Schedule:
    if nfe < 2:
        raise BudgetError(f"needs at least 2 evaluations, not {nfe}")
    return _schedule(path, grid(path, nfe - 1, t_start, path.t_data), official)


def _schedule(path: Path, times: tuple[float, ...], official: bool) -> Schedule:
    return Schedule(times, end=_place(path, official, times[-1]))


_INTEGER = partial(
    Facts,
    paper="2202.09778",
    coordinate="eps",
    note="The official code reads its table of abar one entry late and ends at abar_0 (official=true).",
)


# In NSR the Runge-Kutta start overshoots by the ratio of its ends: logsnr keeps that ratio small on every path.
@register(
    "pndm",
    _INTEGER(
        title="F-PNDM", order=2, scheduler=_f_pndm_schedule, grids=("logsnr", "quadratic", "uniform", "integer-uniform")
    ),
)
def pndm(denoiser: Denoiser, x: Any, times: Sequence[float], *, official: bool = False) -> Any:
    """F-PNDM: three pseudo Runge-Kutta steps, then four-step pseudo linear multistep (Algorithm 2).

    Runge-Kutta steps evaluate at s, twice at the middle time, and at t; n steps cost n + 9 evaluations.
    The weights are those of equal steps, the transfer is exact for constant eps: second order.
    """
    transfer = _transfer(denoiser.path, official)
    past: list[Any] = []
    for n, (s, t) in enumerate(pairwise(times)):
        past = [denoiser.eps(x, s), *past[:3]]
        if n < 3:
            middle, e1 = (s + t) / 2, past[0]
            e2 = denoiser.eps(transfer(x, e1, s, middle), middle)
            e3 = denoiser.eps(transfer(x, e2, s, middle), middle)
            e4 = denoiser.eps(transfer(x, e3, s, t), t)
            e = combine((1 / 6, 1 / 3, 1 / 3, 1 / 6), (e1, e2, e3, e4))
        else:
            e = combine(equal_weights(4), past)
        x = transfer(x, e, s, t)
    return x


@register(
    "s-pndm",
    _INTEGER(
        title="S-PNDM",
        order=2,
        scheduler=_s_pndm_schedule,
        grids=("quadratic", "uniform", "integer-uniform"),
        flow_grid="nsr",
    ),
)
def s_pndm(denoiser: Denoiser, x: Any, times: Sequence[float], *, official: bool = False) -> Any:
    """S-PNDM: one pseudo improved-Euler step, then two-step Adams-Bashforth (appendix A.3); n + 1 evaluations."""
    transfer = _transfer(denoiser.path, official)
    past: list[Any] = []
    for n, (s, t) in enumerate(pairwise(times)):
        past = [denoiser.eps(x, s), *past[:1]]
        if n == 0:
            e = combine((0.5, 0.5), (past[0], denoiser.eps(transfer(x, past[0], s, t), t)))
        else:
            e = combine(equal_weights(2), past)
        x = transfer(x, e, s, t)
    return x


_SIGMA = partial(
    Facts,
    coordinate="eps",
    path="edm",
    grids=("karras", "logsnr", "vp-time:rho=2"),
    flow_grid="sigmoid",
    scheduler=multistep(4),
    ranges={"order": (1, 4)},
)


@register(
    "ipndm",
    _SIGMA(
        title="iPNDM",
        paper="2204.13902",
        order=lambda *, order, **_: min(order, 2),
        variants=({}, {"order": 3}, {"order": 2}, {"order": 1}),
    ),
)
def ipndm(denoiser: Denoiser, x: Any, times: Sequence[float], *, order: int) -> Any:
    """Adams-Bashforth weights of equal steps in sigma, whatever the grid; warm-up 1, 2, ...

    The weights ignore that steps differ: at most second order, on smooth grids.
    """
    weights = [equal_weights(points) for points in range(1, order + 1)]

    def scaled(nodes: Sequence[float], s: float, t: float) -> list[float]:
        return [(t - s) * weight for weight in weights[len(nodes) - 1]]

    return integrate(denoiser.eps, x, times, order, scaled)


@register(
    "lms",
    _SIGMA(
        title="LMS",
        paper="2206.00364",
        order=lambda *, order, official, **_: min(order, 2),
        note="k-diffusion's name for `ipndm-v` with exact weights, which it is.",
    ),
)
@register(
    "ipndm-v",
    _SIGMA(
        title="iPNDM-v",
        paper="2312.00094",
        order=lambda *, order, official, **_: 1 if official and order == 4 else min(order, 2),
        variants=({}, {"order": 3}, {"order": 2}, {"order": 1}, {"official": True}),
        note="Three slips in the published weights of orders 3 and 4 (official=true); "
        "the default is exact, as DEIS-rhoAB.",
    ),
)
def ipndm_v(denoiser: Denoiser, x: Any, times: Sequence[float], *, order: int, official: bool = False) -> Any:
    """Variable-step Adams-Bashforth in sigma, identical to DEIS-rhoAB (arXiv 2204.13902); warm-up 1, 2, ...

    Locally of order q + 1; the first-order first step limits the global order to 2, though at large sigma
    its share is small and q is measured at usual step counts.
    """
    return integrate(denoiser.eps, x, times, order, _published_weights if official else adams_weights)


def _published_weights(nodes: Sequence[float], s: float, t: float) -> list[float]:
    """iPNDM-v's weights as in its code: exact on equal steps up to order 3 only."""
    if len(nodes) <= 2:
        return adams_weights(nodes, s, t)
    h, (h1, h2, *older) = t - s, [a - b for a, b in pairwise(nodes)]
    first, second = (2 + h / h1) / 2, -(h / h1) / 2
    third = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    weights = [first + third, second - (1 + h1 / h2) * third, third * h1 / h2]
    if older:
        h3 = older[0]
        shift = h1 * (h1 + h2) / (h2 * (h2 + h3))
        fourth = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
        fourth *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        weights[0] += fourth
        weights[1] -= (1 + h1 / h2 + shift) * fourth
        weights[2] += (h1 / h2 + shift * (1 + h2 / h3)) * fourth
        weights.append(-fourth * shift * h1 / h2)
    return [h * weight for weight in weights]
