"""DDIM (arXiv 2010.02502) and ancestral sampling, DDPM (arXiv 2006.11239)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.solver import Facts, register

_COMMON = partial(
    Facts,
    coordinate="x0",
    order=1,
    singular_start=True,
    flow_grid="uniform",
    grids=("logsnr", "uniform", "quadratic", "integer-uniform", "integer-quad"),
)


@register(
    "ddim",
    _COMMON(
        title="DDIM",
        paper="2010.02502",
        note="PNDM's DDIM reads its table of alpha one entry late (official=true); DDIM's own code does not.",
    ),
)
def ddim(denoiser: Denoiser, x: Any, times: Sequence[float], *, official: bool = False) -> Any:
    """x_t = alpha_t x0 + sigma_t eps (arXiv 2010.02502, eq. 12 with eta = 0); first order, one evaluation a step.

    It is DPM-Solver-1, DPM-Solver++-1, and Euler's method in sigma/alpha.

    official: the DDIM of the PNDM repository, whose alpha and sigma are those of the next entry of a table of
    1000, while the network is told the right one (arXiv 2202.09778, code).
    """
    path = denoiser.path
    for s, t in pairwise(times):
        p, r = path.alpha(t), path.sigma(t)
        if official:
            late_s, late_t = s + 1e-3, t + 1e-3
            scale = path.alpha(late_t) / path.alpha(late_s)
            p, r = scale * path.alpha(s), path.sigma(late_t) + scale * (path.sigma(s) - path.sigma(late_s))
        x = denoiser.combine(x, s, p, r)
    return x


@register("ddpm", _COMMON(title="DDPM", paper="2006.11239", stochastic=True, ranges={"eta": (0, 1)}))
def ddpm(denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: Callable[[int], Any], eta: float = 1.0) -> Any:
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - d^2) eps + d z with d = eta sigma_t sqrt(1 - e^-2h).

    arXiv 2010.02502, eq. 12 and 16; h is the step in lambda. eta = 1 is ancestral sampling with the posterior
    variance (DDPM), eta = 0 is DDIM. First order, one evaluation and one noise a step.
    """
    path = denoiser.path
    for i, (s, t) in enumerate(pairwise(times)):
        share = eta * math.sqrt(-math.expm1(2 * (path.lam(s) - path.lam(t))))
        x = denoiser.combine(x, s, path.alpha(t), path.sigma(t) * math.sqrt(1 - share * share))
        x = x + (path.sigma(t) * share) * noise(i)
    return x
