"""Where published solvers step: in the noise level s from largest to smallest, with D(x; s) the data prediction.

Those of diffusion step in EDM's space, x = x_0 + s eps (arXiv 2206.00364); those of flows in the linear path's own,
x = (1 - s) x_0 + s eps. In both the slope is dx/ds = (x - D(x; s)) / s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastsample.models.denoiser import Denoiser, Prediction, scale_between
from fastsample.models.path import Edm, LinearFlow, Path
from fastsample.solvers.grids import Grid, GridError
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.table import Table, trace_function

__all__ = ["Space", "outer_levels", "space_of"]

Ask = Callable[[Any, float], Any]  # (x, s) -> D(x; s)
Step = Callable[..., Any]  # (ask, x, noise) -> x


@dataclass(frozen=True)
class Space:
    """The space of a solver for models of a path.

    Attributes:
        path: the model's; own: the path of the space.
    """

    path: Path
    own: Path

    def time(self, s: float) -> float:
        """Of a noise level, on the own path."""
        return 1 - s if self.own.t_data > self.own.t_noise else s

    def table(self, step: Step, start: float, end: float, coordinate: Prediction | None = None) -> Table:
        """The table of a solver on the model's path.

        Args:
            step: makes the result of (ask, x, noise), x the starting noise at level `start`.
            end: the level of the result; what is not above 0 is clean data.
        """
        last = self.path.t_of_lam(math.inf if end <= 0 else self.own.lam(self.time(end)))
        same = isinstance(self.path, type(self.own))
        last = self.time(end) if same else last
        scale = 1.0 if same else scale_between(self.own, self.time(max(end, 0.0)), self.path, last)

        def solve(denoiser: Denoiser, x: Any, noise: Any) -> Any:
            view = denoiser.on(self.own)
            x = step(lambda y, s: view.x0(y, self.time(s)), (start / self.path.prior_std) * x, noise)
            return x if scale == 1 else scale * x

        return trace_function(self.path, coordinate or coordinate_of(self.path), solve, last)


def space_of(path: Path, flow: bool = False) -> Space:
    """The space for a path.

    Raises:
        ValueError: for a flow's solver on another path, or a diffusion's on one that begins with noise alone.
    """
    if flow:
        if not isinstance(path, LinearFlow):
            raise ValueError(f"these numbers are of a flow, and the model's path is {path.name}")
        return Space(path, LinearFlow())
    if path.is_singular(path.t_noise):
        raise ValueError(f"these numbers are of a diffusion model, and the {path.name} path begins with noise alone")
    return Space(path, Edm(t_noise=path.nsr(path.t_noise), t_data=path.nsr(path.t_data)))


def outer_levels(path: Path, n: int, schedule: str, rho: float) -> tuple[float, ...]:
    """The n + 1 noise levels of a schedule of diff-sampler, over the range of a model's path.

    Raises:
        GridError: for an unknown schedule.
    """
    first, last = path.nsr(path.t_noise), path.nsr(path.t_data)
    if schedule == "discrete":  # in the model's own time
        if rho != 1:
            roots = [path.t_noise ** (1 / rho), path.t_data ** (1 / rho)]
            return tuple(path.nsr((roots[0] + (roots[1] - roots[0]) * i / n) ** rho) for i in range(n + 1))
        return tuple(map(path.nsr, Grid.parse("uniform")(path, n, path.t_noise, path.t_data)))
    grids = {
        "polynomial": Grid("karras", {"rho": rho}),
        "logsnr": Grid("logsnr"),
        "time_uniform": Grid("vp-time", {"rho": rho, "sigma_min": last, "sigma_max": first}),
    }
    if schedule not in grids:
        raise GridError(f"unknown schedule {schedule!r}; known: {', '.join(grids)}, discrete")
    return grids[schedule](Edm(t_noise=first, t_data=last), n, first, last)
