"""DEIS (arXiv 2204.13902): Adams-Bashforth on eps with the polynomial in another variable than sigma.

In EDM's variables dx/dsigma = eps. tAB interpolates eps over the time of a VP schedule and integrates
exactly in sigma; rhoAB interpolates over sigma itself and is variable-step Adams-Bashforth, which is
registered as `ipndm-v`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.polynomial.polynomial import polyval

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import VPLinear
from fastsample.solvers.adams import integrate, lagrange, multistep
from fastsample.solvers.solver import Facts, register


def _fitted(sigma_min: float = 0.002, sigma_max: float = 80.0, eps: float = 1e-3) -> VPLinear:
    """The VP schedule with NSR sigma_min at t = eps and sigma_max at t = 1, as in EDM's and DEIS's code."""
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    slope = 2 * (low / eps - high) / (eps - 1)
    return VPLinear(beta_min=high - 0.5 * slope, beta_max=high + 0.5 * slope)


_TIME = _fitted()
_POINTS, _GAUSS = leggauss(64)


def tab_weights(nodes: Sequence[float], s: float, t: float, official: bool = False) -> list[float]:
    """C_j = integral from s to t of L_j(time(sigma)) d sigma, L_j over the times of the nodes (eq. 15).

    Args:
        nodes: sigmas at which eps is known, newest first.
        s, t: sigmas of the step.
        official: the published sum of 10000 equal time intervals instead of Gauss quadrature (up to 6e-5 off).
    """
    if len(nodes) == 1:
        return [t - s]
    start, stop = _TIME.t_of_nsr(s), _TIME.t_of_nsr(t)
    if official:
        at = np.linspace(start, stop, 10_000)
        # d NSR/dt = -alpha' / (sigma alpha^2)
        rate = [-_TIME.d_alpha(u) / (_TIME.sigma(u) * _TIME.alpha(u) ** 2) for u in at.tolist()]
        mass = np.array(rate) * ((stop - start) / len(at))
    else:
        at = np.array([_TIME.t_of_nsr(sigma) for sigma in (s + (t - s) * (0.5 + 0.5 * _POINTS)).tolist()])
        mass = 0.5 * (t - s) * _GAUSS
    local = lagrange([(_TIME.t_of_nsr(node) - start) / (stop - start) for node in nodes])
    return [float(mass @ polyval((at - start) / (stop - start), polynomial)) for polynomial in local]


@register(
    "deis",
    Facts(
        title="DEIS-tAB",
        paper="2204.13902",
        coordinate="eps",
        order=2,
        path="edm",
        grids=("karras", "vp-time:rho=2", "logsnr"),
        flow_grid="sigmoid",
        scheduler=multistep(3),
        variants=({}, {"order": 2}, {"order": 1}, {"official": True}),
        ranges={"order": (1, 3)},
        note="The published coefficients are a 10000-point Riemann sum (official=true); "
        "the default integrates exactly.",
    ),
)
def deis(denoiser: Denoiser, x: Any, times: Sequence[float], *, order: int, official: bool = False) -> Any:
    """tAB of order r = 1..3: r + 1 values of eps; one evaluation a step.

    Locally of order r + 2; the first-order first step limits the global order to 2, though at large
    sigma, where eps hardly changes, its share is small and r + 1 is measured at usual step counts.
    """
    return integrate(denoiser.eps, x, times, order + 1, lambda nodes, s, t: tab_weights(nodes, s, t, official))
