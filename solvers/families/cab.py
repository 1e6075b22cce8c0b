"""CAB, corrected Adams-Bashforth (arXiv 2605.16736): Adams-Bashforth in NSR plus theta times a defect.

On (y, n) = (x / alpha, sigma / alpha), where dy/dn = eps, with the steps h = n_{i+1} - n_i, h_1, h_2 before it:

    y_{i+1} = y_i + h sum_j w_j e_{i-j} + theta h (e_i - (1 + r) e_{i-1} + r e_{i-2}),    r = h_1 / h_2,

w the variable-step Adams-Bashforth weights of order 2 or 3; Euler, then Adams-Bashforth 2 to start. The bracket is what
the new slope differs by from the line through the two before. On equal steps its exact weight is 5/12: theta = 5/12
makes a third-order method of CAB-2, and any theta but 0 takes the third order from CAB-3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.adams import adams_weights, combine, integrate
from fastsample.solvers.solver import Facts, register

_CAB = partial(
    Facts, paper="2605.16736", order=2, ranges={"theta": (-2, 2)},
    variants=({}, {"theta": 5 / 12}, {"order": 3}, {"order": 3, "theta": 0.0}),
)  # fmt: skip


def _weights(order: int, theta: float) -> Callable[[Sequence[float], float, float], list[float]]:
    """Of the last three slopes, newest first; one at infinite NSR (alpha = 0) has its part in the defect alone."""

    def weights(nodes: Sequence[float], s: float, t: float) -> list[float]:
        finite = [node for node in nodes[:order] if math.isfinite(node)]
        found = adams_weights(finite, s, t) + [0.0] * (len(nodes) - len(finite))
        if len(nodes) == 3:
            r = (nodes[0] - nodes[1]) / (nodes[1] - nodes[2])
            found = [w + theta * (t - s) * d for w, d in zip(found, (1, -1 - r, r), strict=True)]
        return found

    return weights


@register("cab", _CAB(title="CAB", coordinate="eps", path="edm", grids=("karras", "logsnr"), flow_grid="sigmoid"))
def cab(denoiser: Denoiser, x: Any, times: Sequence[float], *, order: Literal[2, 3] = 2, theta: float = 0.9) -> Any:
    """CAB-2 and CAB-3; one evaluation a step. theta = 0.9 damps at few steps, theta = 0 is `ipndm-v`."""
    return integrate(denoiser.eps, x, times, 3, _weights(order, theta))


@register(
    "cab-flow",
    _CAB(
        title="CAB on flows",
        coordinate="velocity",
        path="flow",
        singular_start=True,
        grids=("uniform", "shift"),
        note="The official second step has the weights of equal steps on every grid (official=true).",
    ),
)
def cab_flow(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    order: Literal[2, 3] = 2,
    theta: float = 0.9,
    official: bool = False,
) -> Any:
    """CAB on the linear path from its very noise: the first two steps are Adams-Bashforth on the velocity, in t.

    From the third on e = x - t u, and a slope at t = 0, where NSR is infinite, has the limits of its weights.
    """
    path, weights = denoiser.path, _weights(order, theta)
    nodes, slopes, velocities = list[float](), list[Any](), list[Any]()
    for i, (s, t) in enumerate(pairwise(times)):
        u = denoiser.velocity(x, s)
        nodes, slopes, velocities = [path.nsr(s), *nodes][:3], [x - s * u, *slopes][:3], [u, *velocities][:2]
        if i < 2:
            known = [s - j * (t - s) for j in range(i + 1)] if official else [s, *times[:i]]
            x = x + combine(adams_weights(known, s, t), velocities)
        else:
            y = (1 / s) * x + combine(weights(nodes, nodes[0], path.nsr(t)), slopes)
            x = t * y
    return x
