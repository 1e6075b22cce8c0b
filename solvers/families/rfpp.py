"""The few-step sampler of 2-rectified flow++ (arXiv 2405.20320, algorithm 2), a heuristic for nearly straight flows.

On the linear path x_t = t x_0 + (1 - t) z_1 each step predicts the data and goes to the point at t' of the straight
line from it to the noise z_1 that sampling started from, which no step changes:

    xhat = x + (1 - t) u(x, t),        x' = t' xhat + (1 - t') z_1.

Where the paths are straight this is Euler's step and exact. Elsewhere it integrates no ODE: z_1 is not the noise that
x and xhat imply. With few steps that can help, with more the distance to the solution grows: on the ring mixture
of eight Gaussians it is below Euler's at 3 and 5 evaluations, and above it from 9 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register


def _schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, heun: bool = False) -> Schedule:
    """nfe steps; with `heun` (nfe + 1) // 2 steps of two evaluations, but for the last, which makes one."""
    return Schedule(grid(path, (nfe + 1) // 2 if heun else nfe, t_start, path.t_data))


@register(
    "rfpp",
    Facts(
        title="2-rectified flow++ sampler",
        paper="2405.20320",
        coordinate="velocity",
        order=0,
        grids=("uniform",),
        path="flow",
        singular_start=True,
        scheduler=_schedule,
        variants=({}, {"heun": True}),
        note="Heuristic for reflowed models, no consistent ODE solver. The official code starts at t = 1e-5 with the "
        "noise scaled by 1 - 1e-5, and ends at t = 1.",
    ),
)
def rfpp(denoiser: Denoiser, x: Any, times: Sequence[float], *, heun: bool = False) -> Any:
    """x' = t' xhat + (1 - t') z_1 with the first noise z_1; one evaluation a step. No order: see the module.

    Args:
        heun: predict x' by the rule, and make the step with the mean of both velocities; the last step does not.
            A budget is spent where it is odd.
    """
    z1 = x / (1 - times[0])
    for s, t in pairwise(times):
        u = denoiser.velocity(x, s)
        if heun and t != times[-1]:
            u = 0.5 * (u + denoiser.velocity(_anchored(x, u, z1, s, t), t))
        x = _anchored(x, u, z1, s, t)
    return x


def _anchored(x: Any, u: Any, z1: Any, s: float, t: float) -> Any:
    return t * (x + (1 - s) * u) + (1 - t) * z1
