"""ERA-Solver (arXiv 2301.12935): implicit Adams with a Lagrange prediction of the noise, whose bases follow its error.

No code of the authors was found: these are the formulas of the paper's description, and experimental. With
F(x, e; s -> t) = alpha_t / alpha_s (x - sigma_s e) + sigma_t e, all noise predictions e_j kept and, in the first
max(k - 1, 2) steps, x_{i+1} = F(x_i, e_i):

    Delta    |e_i - p_i|, with p_i the prediction of e_i that the step before made (L where it made none)
    tau_m    floor(i (m / k)^(Delta / L)), m = 1 .. k, made distinct from the last one down (or the last k)
    p_{i+1}  the polynomial in t through the e at the times of tau_1 .. tau_k, at t_{i+1}
    x_{i+1}  F(x_i, (9 p_{i+1} + 19 e_i - 5 e_{i-1} + e_{i-2}) / 24)

A large error prefers older bases. Delta is the norm of a sample, so that bases are each sample's own; it grows with the
root of the dimension, and L is to grow with it. The first steps leave the second order in the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.samples import each, norms
from fastsample.solvers.solver import Facts, register


def _bases(i: int, k: int, exponent: float) -> tuple[int, ...]:
    """The indices of k of the values 0 .. i, rising; the last is i."""
    found = [int(np.floor(i * (m / k) ** exponent + 1e-9)) for m in range(1, k + 1)]
    for m in range(k - 2, -1, -1):
        found[m] = max(0, min(found[m], found[m + 1] - 1))
    return tuple(found) if len(set(found)) == k else tuple(range(i - k + 1, i + 1))


def _lagrange(times: Sequence[float], bases: Sequence[int], t: float) -> np.ndarray:
    """The weights [len(times)] of the values at all times in the polynomial through the bases, at t."""
    weights = np.zeros(len(times))
    for m in bases:
        weights[m] = np.prod([(t - times[q]) / (times[m] - times[q]) for q in bases if q != m])
    return weights


@register(
    "era",
    Facts(
        title="ERA-Solver (experimental)",
        paper="2301.12935",
        coordinate="eps",
        order=2,
        grids=("logsnr", "uniform", "quadratic"),
        flow_grid="sigmoid",
        nonlinear=True,
        ranges={"k": (2, 10), "error_scale": (1e-6, 1e6)},
        variants=({}, {"k": 3}, {"k": 5, "error_scale": 15.0}),
        note="Experimental: no code of the authors was found, and the formulas are unverified. The paper chooses bases "
        "by the mean error of the batch (official=true).",
    ),
)
def era(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    k: int = 4,
    error_scale: float = 5.0,
    official: bool = False,
) -> Any:
    """ERA-Solver with k bases and error scale L; one evaluation a step."""
    path, past, expected = denoiser.path, list[Any](), None  # the noise predictions; that of the next one
    for i, (s, t) in enumerate(pairwise(times)):
        past.append(denoiser.eps(x, s))
        slope = past[-1]
        if i >= max(k - 1, 2):
            error = np.array([error_scale]) if expected is None else norms(past[-1] - expected)
            error = error.mean(keepdims=True) if official else error
            bases = [_bases(i, k, one / error_scale) for one in error]
            known = {chosen: _lagrange(times[: i + 1], chosen, t) for chosen in set(bases)}
            weights = np.stack([known[chosen] for chosen in bases])
            expected = sum(each(weights[:, j], x) * past[j] for j in np.flatnonzero(weights.any(0)))
            slope = (9 * expected + 19 * past[-1] - 5 * past[-2] + past[-3]) / 24
        scale = path.alpha(t) / path.alpha(s)
        x = scale * x + (path.sigma(t) - scale * path.sigma(s)) * slope
    return x
