"""Exponential integrators in lambda: what DPM-Solver, DPM-Solver++ and UniPC share.

One step goes from s to t with h = lambda_t - lambda_s. Noise and data prediction are written once:

    symbol    noise prediction       data prediction
    m         eps                    x0
    A         alpha_t / alpha_s      e^(-tau^2 h) sigma_t / sigma_s
    c_t       (1 + tau^2) sigma_t    alpha_t
    H         +h                     -(1 + tau^2) h
    noise     tau sigma_t sqrt(e^(2h) - 1) z    sigma_t sqrt(1 - e^(-2 tau^2 h)) z

tau = 0 is the probability-flow ODE, tau > 0 an SDE of the same marginals (arXiv 2309.05019, eq. 14), to whose step the
noise is added; tau = 1 is that of arXiv 2211.01095. But for the noise the exact solution is (arXiv 2206.00927, eq. 3.4;
2211.01095, eq. 9)

    x_t = A x_s - c_t H  int_0^1 e^(H (1 - tau)) m(lambda_s + tau h) dtau.

If m is a polynomial through m_0 at tau = 0 and m_k at the nodes tau_k, this is

    x_t = A x_s - c_t ( psi_0 m_0 + sum_k v_k (m_k - m_0) ),    sum_k v_k tau_k^j = j! psi_j(H),  j = 1, 2, ...

Older values have tau_k < 0 (Adams-Bashforth), a value at t has tau_k = 1 (Adams-Moulton): a `Rule`
gives the v_k, and a multistep method is a rule for its predictor and one for its corrector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser, Prediction
from fastsample.models.path import Path
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Schedule

__all__ = ["Rule", "adams", "adams_half", "multistep", "multistep_schedule", "prediction_named", "psi", "spread",
           "step"]  # fmt: skip

# (H, nodes tau_k) -> weights v_k of m_k - m_0
Rule = Callable[[float, Sequence[float]], Sequence[float]]


def psi(j: int, h: float) -> float:
    """psi_0 = e^H - 1, psi_j = psi_{j-1} / H - 1 / j! = sum_{m>=1} H^m / (m + j)!; H may be -inf.

    (psi_j = H phi_{j+1}(H) of the literature on exponential integrators.)
    """
    if abs(h) < 1:  # the recursion cancels for small H
        return sum(h**m / math.factorial(m + j) for m in range(18, 0, -1))
    value = math.expm1(h)
    for i in range(1, j + 1):
        value = value / h - 1 / math.factorial(i)
    return value


def prediction_named(name: str) -> Prediction:
    """What `prediction=data` and `prediction=noise` ask of the denoiser.

    Raises:
        ValueError: for another name.
    """
    known: dict[str, Prediction] = {"data": "x0", "noise": "eps"}
    if name not in known:
        raise ValueError(f"prediction is data or noise, not {name!r}")
    return known[name]


def _transfer(path: Path, s: float, t: float, prediction: str, tau: float) -> tuple[float, float, float]:
    """(A, c_t, H) of the table above, for prediction "data" or "noise"."""
    h = path.lam(t) - path.lam(s)
    if prediction == "noise":
        return path.alpha(t) / path.alpha(s), (1 + tau * tau) * path.sigma(t), h
    scale = path.sigma(t) / path.sigma(s)
    return (scale * math.exp(-tau * tau * h) if tau else scale), path.alpha(t), -(1 + tau * tau) * h


def spread(path: Path, s: float, t: float, prediction: str, tau: float) -> float:
    """The standard deviation of the noise of a step of the SDE; 0 for tau = 0."""
    if tau == 0:
        return 0.0
    h = path.lam(t) - path.lam(s)
    if prediction == "noise":
        return tau * path.sigma(t) * math.sqrt(math.expm1(2 * h))
    return path.sigma(t) * math.sqrt(-math.expm1(-2 * tau * tau * h))


def adams(h: float, nodes: Sequence[float], moments: Sequence[float] | None = None) -> Sequence[float]:
    """The rule that is exact for polynomials: sum_k v_k tau_k^j = j! psi_j(H) (or the given moments)."""
    powers = range(1, len(nodes) + 1)
    if moments is None:
        moments = [math.factorial(j) * psi(j, h) for j in powers]
    return [float(v) for v in np.linalg.solve(np.array([[tau**j for tau in nodes] for j in powers]), moments)]


def adams_half(b: Callable[[float], float]) -> Rule:
    """`adams`, but a single node gets v = B(H) / (2 tau) in place of psi_1(H) / tau; B = H + O(H^2).

    B = psi_0 is the second difference of DPM-Solver-2M and of UniPC's bh2, B = H that of bh1. Over an
    infinite step B = psi_0: the trapezoidal rule in e^lambda.
    """

    def rule(h: float, nodes: Sequence[float]) -> Sequence[float]:
        if len(nodes) != 1:
            return adams(h, nodes)
        return [(b(h) if math.isfinite(h) else psi(0, h)) / (2 * nodes[0])]

    return rule


def step(
    path: Path,
    x: Any,
    s: float,
    t: float,
    prediction: str,
    values: Sequence[tuple[float, Any]],
    rule: Rule,
    tau: float = 0.0,
) -> Any:
    """x at t from x at s; `values` are (lambda, m), m_0 at s first.

    Where lambda_s or lambda_t is infinite older values say nothing about m inside the step, and a value
    at lambda = -inf is infinitely far from any later step: such values are left out.
    """
    a, c, h = _transfer(path, s, t, prediction, tau)
    (start, m), *others = values
    end = path.lam(t)
    others = [(lam, value) for lam, value in others if math.isfinite(lam) and (lam == end or math.isfinite(h))]
    v = rule(h, [1.0 if lam == end else (lam - start) / (end - start) for lam, _ in others]) if others else []
    x = a * x - (c * (psi(0, h) - sum(v))) * m
    for weight, (_, value) in zip(v, others, strict=True):
        x = x - (c * weight) * value
    return x


def multistep(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    orders: Sequence[int],
    prediction: str,
    predictor: Rule,
    corrector: Rule | None = None,
    noise: Callable[[int], Any] | None = None,
) -> Any:
    """Predict with the last `orders[i]` values at step i; one evaluation a step.

    With a corrector each step but the last is done again once m is known at the predicted point; m is
    not evaluated anew (arXiv 2302.04867, algorithms 1 and 2). With noise it integrates the SDE, by data
    prediction (arXiv 2211.01095, eq. 18).
    """
    path, wanted, tau = denoiser.path, prediction_named(prediction), 1.0 if noise else 0.0
    past: list[tuple[float, Any]] = []  # (lambda, m), newest first
    before = x
    for i, (s, t) in enumerate(pairwise(times)):
        now = path.lam(s), denoiser.predict(x, s, wanted)
        if corrector and past:
            x = step(path, before, times[i - 1], s, prediction, [*past[: orders[i - 1]], now], corrector, tau)
        past = [now, *past][: max(orders)]
        before = x
        x = step(path, x, s, t, prediction, past[: orders[i]], predictor, tau)
        if noise:
            x = x + spread(path, s, t, prediction, tau) * noise(i)
    return x


def multistep_schedule(
    path: Path,
    t_start: float,
    grid: Grid,
    nfe: int,
    *,
    order: Literal[1, 2, 3, 4] = 2,
    lower_order_final: Literal["always", "short", "never"] = "short",
    prediction: Literal["data", "noise"] = "data",
) -> Schedule:
    """One interval and one evaluation a step; the order rises from 1 to `order`.

    lower_order_final lets it fall to 1 again at the end: "always" (UniPC), "never", or "short": only
    with less than ten steps (DPM-Solver).
    """
    if prediction == "noise" and path.is_singular(t_start):  # there eps says no more than x
        t_start = path.t_finite
    times = grid(path, nfe, t_start, path.t_data)
    n = len(times) - 1
    fall = lower_order_final == "always" or (lower_order_final == "short" and n < 10)
    orders = [i if i < order else min(order, n + 1 - i if fall else order) for i in range(1, n + 1)]
    return Schedule(times, {"orders": orders})
