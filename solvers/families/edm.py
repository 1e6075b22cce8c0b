"""The samplers of EDM (arXiv 2206.00364): Runge-Kutta in sigma on dx/dsigma = (x - D(x; sigma)) / sigma = eps.

The published sampler ends with an Euler step to sigma = 0, which is the data prediction at the last
sigma: `denoise=true`. Heun then makes the published 2 N - 1 evaluations for N sigmas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.solver import Facts, register, steps

_EDM = partial(
    Facts,
    paper="2206.00364",
    coordinate="eps",
    path="edm",
    grids=("karras", "logsnr", "vp-time:rho=2"),
    flow_grid="sigmoid",
)


@register("edm-euler", _EDM(title="EDM Euler", order=1))
def edm_euler(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """x' = x + (sigma' - sigma) d(x, sigma). First order; it is DDIM."""
    for s, t in pairwise(times):
        x = x + (t - s) * denoiser.eps(x, s)
    return x


def heun_step(denoiser: Denoiser, x: Any, s: float, t: float) -> Any:
    d = denoiser.eps(x, s)
    corrected = denoiser.eps(x + (t - s) * d, t)
    return x + (t - s) / 2 * (d + corrected)


@register("edm-heun", _EDM(title="EDM Heun", order=2, scheduler=steps(2)))
def edm_heun(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
    """Algorithm 1, deterministic: the trapezoid with an Euler predictor. Second order; two evaluations a step."""
    for s, t in pairwise(times):
        x = heun_step(denoiser, x, s, t)
    return x


@register("edm-dpm2", _EDM(title="DPM-Solver-2 in sigma", order=2, scheduler=steps(2), ranges={"r": (0.05, 1)}))
def edm_dpm2(denoiser: Denoiser, x: Any, times: Sequence[float], *, r: float = 0.5) -> Any:
    """Midpoint at sigma'^r sigma^(1-r) (table 1 of arXiv 2312.00094). Second order; two evaluations a step.

    x' = x + (sigma' - sigma) ( d_mid / (2 r) + (1 - 1/(2 r)) d ), second order for r = 1/2 and, on grids
    whose steps shrink in proportion, for any r in (0, 1].
    """
    for s, t in pairwise(times):
        d = denoiser.eps(x, s)
        middle = t**r * s ** (1 - r)
        slope = denoiser.eps(x + (middle - s) * d, middle)
        x = x + (t - s) * (1 / (2 * r) * slope + (1 - 1 / (2 * r)) * d)
    return x


@register(
    "edm-sde",
    _EDM(
        title="EDM stochastic",
        order=1,
        scheduler=steps(2),
        stochastic=True,
        ranges={"S_churn": (0, 1e6), "S_min": (0, 1e6), "S_max": (0, 1e12), "S_noise": (0, 10)},
    ),
)
def edm_sde(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    noise: Callable[[int], Any],
    S_churn: float = 30.0,
    S_min: float = 0.01,
    S_max: float = 1.0,
    S_noise: float = 1.007,
    denoise: bool = False,
) -> Any:
    """Algorithm 2: each step first raises sigma to (1 + gamma) sigma with fresh noise, then makes a Heun step.

    gamma = min(S_churn / N, sqrt(2) - 1) where S_min <= sigma <= S_max, else 0; N counts the sigmas, the
    last step to 0 included. The defaults are those of CIFAR-10, VP (table 5). With S_churn = 0 it is `edm-heun`.

    Args:
        noise: the standard normal vector of step i.
        denoise: make the last step, which is raised like the others: the data prediction there.
    """

    def churned(x: Any, i: int) -> tuple[Any, float]:
        s = times[i]
        gamma = min(S_churn / len(times), math.sqrt(2) - 1) if S_min <= s <= S_max else 0.0
        raised = s * (1 + gamma)
        return (x + math.sqrt(raised**2 - s**2) * S_noise * noise(i), raised) if gamma > 0 else (x, s)

    for i, t in enumerate(times[1:]):
        x = heun_step(denoiser, *churned(x, i), t)
    return denoiser.x0(*churned(x, len(times) - 1)) if denoise else x
