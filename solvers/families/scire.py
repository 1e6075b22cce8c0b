"""SciRE-Solver and SciREI-Solver (arXiv 2308.07896): score integrands with recursive differences.

Scaled by alpha (V1) or sigma (V2) the probability-flow ODE has the prediction itself as its slope:

    V1: y = x / alpha,  tau = NSR = sigma/alpha,  dy/dtau = eps(alpha y, t)     (eq. 3.2)
    V2: y = x / sigma,  tau = 1 / NSR,            dy/dtau = x0(sigma y, t)      (eq. 3.3)

The derivative of the slope is estimated by the recursive difference (Cor. 3.1)

    f'(tau_s) = (f(tau_1) - f(tau_s)) / (phi (tau_1 - tau_s)),   phi_1(m) = sum_{k=1}^m (-1)^(k-1) / k!

with phi_1(m) -> (e - 1)/e; phi = 1 is the plain finite difference (FD).

Order: any constant phi < 1 leaves the local defect h^2 f' (1 - 1/phi) / 2, so with recursive
differences every member converges with order 1; with FD with order 2, and with FD, three stages
and stage=consistent with order 3 where no step is of lower order (mode=singlestep_fixed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser, Prediction
from fastsample.models.path import Path
from fastsample.solvers.budgets import agile_orders, exact_times, fixed_orders, interior_ratios, outer_times
from fastsample.solvers.exponential import prediction_named
from fastsample.solvers.grids import Grid
from fastsample.solvers.recursive_difference import constant_phi, is_exact, phi_per_step
from fastsample.solvers.solver import Facts, Schedule, register


def _split(mode: str, nfe: int, order: int) -> list[int]:
    return agile_orders(nfe, order) if mode == "singlestep_agile" else fixed_orders(nfe, order)


def _multistep_orders(nfe: int, order: int, lower_order_final: bool) -> list[int]:
    fixed_orders(nfe, order)  # the budget must hold one step of full order
    return [min(i, order, nfe + 1 - i if lower_order_final else order) for i in range(1, nfe + 1)]


def _scire_schedule(
    path: Path,
    t_start: float,
    grid: Grid,
    nfe: int,
    *,
    order: Literal[1, 2, 3] = 2,
    mode: Literal["singlestep_agile", "singlestep_fixed", "multistep"] = "singlestep_agile",
    phi: str = "m3",
    ratios: Literal["fixed", "grid"] = "fixed",
    stage: Literal["paper", "consistent"] = "paper",
    rule: Literal["root", "sd"] = "root",
    lower_order_final: bool = True,
    prediction: Literal["data", "noise"] = "noise",
) -> Schedule:
    multistep = mode == "multistep"
    if multistep:
        orders = _multistep_orders(nfe, order, lower_order_final and (rule == "root" or nfe < 10))
        times = exact_times(path, t_start, grid, nfe)
        interiors: list[tuple[float, ...]] = [()] * nfe
    else:
        orders = _split(mode, nfe, order)
        times = outer_times(path, t_start, grid, orders)
        if ratios == "grid":
            steps = zip(orders, *zip(*pairwise(times), strict=True), strict=True)
            interiors = [interior_ratios(path, grid, p, s, t, path.nsr) for p, s, t in steps]
        else:
            interiors = [tuple(j / p for j in range(1, p)) for p in orders]
    arguments = {
        "prediction": prediction_named(prediction), "orders": orders,
        "phis": phi_per_step(phi, multistep, nfe, order, len(orders)),
        "interiors": interiors, "power": 2 if stage == "consistent" else 1, "rule": rule if multistep else None,
    }  # fmt: skip
    return Schedule(times, arguments)


def _order(*, order: int, mode: str, phi: str, ratios: str, stage: str, **_: Any) -> int:
    if not is_exact(phi):
        return 1
    third = stage == "consistent" and mode == "singlestep_fixed" and ratios == "fixed"
    return min(order, 3 if third else 2)


_SCIRE = partial(
    Facts,
    paper="2308.07896",
    order=_order,
    grids=("nsr", "logsnr", "uniform", "quadratic", "sigmoid"),
    flow_grid="sigmoid",
    scheduler=_scire_schedule,
    note="The published code varies phi from step to step (phi=code-root, code-sd); the paper's is constant.",
    variants=(
        {},
        {"order": 3},
        {"phi": "fd"},
        {"mode": "multistep"},
        {"phi": "code-root", "ratios": "grid", "mode": "singlestep_fixed"},
        {"mode": "multistep", "order": 3, "rule": "sd", "phi": "code-sd", "lower_order_final": False},
    ),
)


@register("scire", _SCIRE(title="SciRE-Solver-V1", coordinate="eps"))
@register("scire-v2", _SCIRE(title="SciRE-Solver-V2", coordinate="x0", defaults={"prediction": "data"}))
def scire(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    prediction: Prediction,
    orders: Sequence[int],
    phis: Sequence[float],
    interiors: Sequence[tuple[float, ...]],
    power: int,
    rule: str | None,
) -> Any:
    """SciRE-Solver in scaled coordinates: single-step (Algorithms 1 and 2) or, with a rule, multistep.

    Args:
        prediction: "eps" is V1, "x0" is V2.
        orders, phis: of each step.
        interiors: of each step its interior r_j; 1/2 or (1/3, 2/3), or taken from the grid (ratios=grid).
        power: of r_j in a stage.
        rule: None, or which published code's second-order multistep rule to follow.
    """
    ode = _ScaledODE(denoiser, prediction)
    y = (1 / ode.scale(times[0])) * x
    if rule is None:
        y = _singlestep(ode, y, times, phis, interiors, power)
    else:
        y = _multistep(ode, y, times, orders, phis, rule)
    return ode.scale(times[-1]) * y


class _ScaledODE:
    """dy/dtau = f(y, t), y = x / scale(t): V1 with the noise prediction, V2 with the data prediction."""

    def __init__(self, denoiser: Denoiser, prediction: Prediction) -> None:
        self.denoiser, self.prediction, self.path = denoiser, prediction, denoiser.path
        self.scale: Callable[[float], float] = self.path.alpha if prediction == "eps" else self.path.sigma
        self._sign = 1 if prediction == "eps" else -1

    def tau(self, t: float) -> float:
        return self.path.nsr(t) ** self._sign

    def t_of(self, tau: float) -> float:
        return self.path.t_of_nsr(tau**self._sign)

    def f(self, y: Any, t: float) -> Any:
        return self.denoiser.predict(self.scale(t) * y, t, self.prediction)


def _singlestep(
    ode: _ScaledODE,
    y: Any,
    times: Sequence[float],
    phis: Sequence[float],
    interiors: Sequence[tuple[float, ...]],
    power: int,
) -> Any:
    """h = tau(t) - tau(s), k_0 = f(y, s), stages at tau(s) + r_j h, and r = 1 for the result:

        u_1 = y + r_1 h k_0,   k_j = f(u_j)
        u_j = y + r_j h k_0 + r_j^power h / (2 phi r_{j-1}) (k_{j-1} - k_0)

    power = 1 is the published stage; power = 2 (stage=consistent) is the second-order one, which makes
    three stages with phi = 1 and r = 1/3, 2/3 Heun's third-order method in tau.
    """
    for (s, t), phi, interior in zip(pairwise(times), phis, interiors, strict=True):
        tau, r = ode.tau(s), (*interior, 1.0)
        h = ode.tau(t) - tau
        k0 = ode.f(y, s)
        u = y + (r[0] * h) * k0
        for before, now in pairwise(r):
            k = ode.f(u, ode.t_of(tau + before * h))
            u = y + (now * h) * k0 + (now**power * h / (2 * phi * before)) * (k - k0)
        y = u
    return y


def _multistep(
    ode: _ScaledODE, y: Any, times: Sequence[float], orders: Sequence[int], phis: Sequence[float], rule: str
) -> Any:
    """y' = y + h (k_0 + d), h = tau(t) - tau(s), k_0 = f(y, s), d the recursive difference over the steps before."""
    past: list[tuple[float, Any]] = []
    for (s, t), order, phi in zip(pairwise(times), orders, phis, strict=True):
        h, k0 = ode.tau(t) - ode.tau(s), ode.f(y, s)
        past = [(ode.path.nsr(s), k0), *past[:2]]
        y = y + h * k0
        if order > 1:
            y = y + h * _difference(past[:order], ode.path.nsr(t), phi, rule)
    return y


def _difference(past: Sequence[tuple[float, Any]], n_t: float, phi: float, rule: str) -> Any:
    """What a multistep step of order len(past) adds to the newest slope (code of the authors).

    Ratios are taken in NSR for V2 too, as published. Order 2 has two rules: the Stable Diffusion copy
    (sd) uses the ratio of NSR steps, the current code (root) the fourth root of that of log NSR steps.
    """
    (n0, k0), (n1, k1) = past[:2]
    r0 = phi * (n0 - n1) / (n_t - n0)
    if len(past) == 2:
        r = (math.log(n1 / n0) / math.log(n0 / n_t)) ** 0.25 if rule == "root" else r0
        return (1 / (2 * phi * r)) * (k0 - k1)
    n2, k2 = past[2]
    r1 = phi / (1 + phi) * (n1 - n2) / (n0 - n1)
    return (1 / (2 * r0 * phi)) * (k0 - k1) + (1 / (6 * r0 * r1 * phi * phi)) * (k0 - 2 * k1 + k2)


def _scirei_schedule(
    path: Path, t_start: float, grid: Grid, nfe: int, *,
    mode: Literal["singlestep_agile", "singlestep_fixed"] = "singlestep_agile", phi: str = "m3",
) -> Schedule:  # fmt: skip
    orders = _split(mode, nfe, 2)
    return Schedule(outer_times(path, t_start, grid, orders), {"orders": orders, "phi_value": constant_phi(phi)})


@register(
    "scirei",
    Facts(
        title="SciREI-Solver",
        paper="2308.07896",
        coordinate="eps",
        grids=("nsr", "logsnr", "uniform", "quadratic"),
        flow_grid="sigmoid",
        order=lambda *, phi, **_: 2 if is_exact(phi) else 1,
        scheduler=_scirei_schedule,
    ),
)
def scirei(denoiser: Denoiser, x: Any, times: Sequence[float], *, orders: Sequence[int], phi_value: float) -> Any:
    """Exponential integrator in lambda with a recursive difference (section 4); steps of order 2, or 1.

    h = lambda(t) - lambda(s), u at lambda(s) + h/2 by a first-order step, k_1 = eps(u):

        x_t = alpha_t/alpha_s x - sigma_t (e^h - 1) k_0 - 2 sigma_t (e^h - 1 - h) / (phi h) (k_1 - k_0)

    phi = 1 is the "taylor" type of DPM-Solver-2.
    """
    path = denoiser.path
    for (s, t), order in zip(pairwise(times), orders, strict=True):
        lam = path.lam(s)
        h = path.lam(t) - lam
        k0 = denoiser.eps(x, s)
        y = path.alpha(t) / path.alpha(s) * x - path.sigma(t) * math.expm1(h) * k0
        if order == 2:
            middle = path.t_of_lam(lam + h / 2)
            u = path.alpha(middle) / path.alpha(s) * x - path.sigma(middle) * math.expm1(h / 2) * k0
            y = y - path.sigma(t) * 2 * (math.expm1(h) - h) / (phi_value * h) * (denoiser.eps(u, middle) - k0)
        x = y
    return x
