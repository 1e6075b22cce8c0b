"""k-diffusion's stochastic samplers of EDM's path (arXiv 2206.00364, 2211.01095), in sigma.

Ancestral ones split a step from s to t: with up = min(t, eta t sqrt(s^2 - t^2) / s) and down = sqrt(t^2 - up^2) a
deterministic method goes to down, and up z is added. The SDE ones integrate with H = h (1 + eta), h = log(s / t), D the
data prediction:

    x <- e^-H x + (1 - e^-H) D + (terms of older D) + t sqrt(1 - e^(-2 h eta)) z.

The published runs end with a step to sigma = 0, which is the data prediction: `denoise=true`. eta = 0 is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.solver import Facts, register, steps

_SIGMA = partial(
    Facts,
    coordinate="x0",
    order=1,
    path="edm",
    grids=("karras", "logsnr"),
    flow_grid="sigmoid",
    stochastic=True,
    ranges={"eta": (0, 1)},
)
_ANCESTRAL = partial(_SIGMA, paper="2206.00364")
_SDE = partial(_SIGMA, paper="2211.01095")
_Noise = Callable[[int], Any]


def _split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(down, up) of a step."""
    up = min(t, eta * t * math.sqrt((s - t) * (s + t)) / s)
    return math.sqrt((t - up) * (t + up)), up


@register("euler-ancestral", _ANCESTRAL(title="Euler ancestral"))
def euler_ancestral(denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0) -> Any:
    """Euler to down, then noise; one evaluation a step."""
    for i, (s, t) in enumerate(pairwise(times)):
        down, up = _split(s, t, eta)
        x = x + (down - s) * denoiser.eps(x, s) + up * noise(i)
    return x


@register("dpm2-ancestral", _ANCESTRAL(title="DPM-Solver-2 ancestral", scheduler=steps(2)))
def dpm2_ancestral(denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0) -> Any:
    """The midpoint rule at sqrt(s down), then noise; two evaluations a step."""
    for i, (s, t) in enumerate(pairwise(times)):
        down, up = _split(s, t, eta)
        if down == 0:
            return denoiser.x0(x, s) + up * noise(i)
        middle = math.sqrt(s * down)
        slope = denoiser.eps(x + (middle - s) * denoiser.eps(x, s), middle)
        x = x + (down - s) * slope + up * noise(i)
    return x


@register("dpmpp-2s-ancestral", _SDE(title="DPM-Solver++(2S) ancestral", scheduler=steps(2)))
def dpmpp_2s_ancestral(denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0) -> Any:
    """The midpoint rule in log sigma with data prediction, then noise; two evaluations a step."""
    for i, (s, t) in enumerate(pairwise(times)):
        down, up = _split(s, t, eta)
        middle = math.sqrt(s * down)
        inner = (middle / s) * x + (1 - middle / s) * denoiser.x0(x, s)
        x = (down / s) * x + (1 - down / s) * denoiser.x0(inner, middle) + up * noise(i)
    return x


@register("dpmpp-sde", _SDE(title="DPM-Solver++ SDE", scheduler=steps(2)))
def dpmpp_sde(denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0) -> Any:
    """Ancestral first-order steps to sqrt(s t) and, with the data prediction there, from s to t; two of each a step."""
    for i, (s, t) in enumerate(pairwise(times)):
        middle = math.sqrt(s * t)
        down, up = _split(s, middle, eta)
        inner = (down / s) * x + (1 - down / s) * denoiser.x0(x, s) + up * noise(2 * i)
        down, up = _split(s, t, eta)
        x = (down / s) * x + (1 - down / s) * denoiser.x0(inner, middle) + up * noise(2 * i + 1)
    return x


@register("dpmpp-2m-sde", _SDE(title="DPM-Solver++(2M) SDE"))
def dpmpp_2m_sde(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Any:  # fmt: skip
    """The SDE with one older value; one evaluation a step. With eta = 0 and midpoint it is DPM-Solver++(2M)."""
    return _multistep(denoiser, x, times, noise, eta, 2, solver_type, 1.0)


@register(
    "dpmpp-3m-sde",
    _SDE(
        title="DPM-Solver++(3M) SDE",
        note="The published second difference lacks a factor 2 (official=true), as that of DPM-Solver++(3M).",
    ),
)
def dpmpp_3m_sde(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: _Noise, eta: float = 1.0, official: bool = False
) -> Any:
    """The SDE with two older values; one evaluation a step."""
    return _multistep(denoiser, x, times, noise, eta, 3, "heun", 1.0 if official else 2.0)


def _multistep(
    denoiser: Denoiser, x: Any, times: Sequence[float], noise: _Noise, eta: float, order: int, kind: str, bend: float
) -> Any:
    """kind: the weight of a single difference; bend: the factor of the second difference."""
    past, spans = list[Any](), list[float]()  # D and h, newest first
    for i, (s, t) in enumerate(pairwise(times)):
        past, h = [denoiser.x0(x, s), *past][:order], math.log(s / t)
        big = h * (1 + eta)
        x = math.exp(-big) * x - math.expm1(-big) * past[0]
        f2 = 1 + math.expm1(-big) / big
        if len(past) == 2:
            weight = f2 if kind == "heun" else -math.expm1(-big) / 2
            x = x + (weight * h / spans[0]) * (past[0] - past[1])
        elif len(past) == 3:
            r0, r1 = spans[0] / h, spans[1] / h
            d10, d11 = (1 / r0) * (past[0] - past[1]), (1 / r1) * (past[1] - past[2])
            d1, d2 = d10 + (r0 / (r0 + r1)) * (d10 - d11), (1 / (r0 + r1)) * (d10 - d11)
            x = x + f2 * d1 - (bend * (f2 / big - 0.5)) * d2
        x = x + (t * math.sqrt(-math.expm1(-2 * h * eta))) * noise(i)
        spans = [h, *spans][:2]
    return x
