"""How solvers move: their distance from the exact trajectory along the way, and how far trajectories bend.

Everything is measured where all models look alike, on the linear path z = tau x_0 + (1 - tau) eps. The point x at t of
another path is z = x / (alpha + sigma) at tau = alpha / (alpha + sigma), 0 at pure noise and 1 at data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path

__all__ = ["Recorder", "curvature", "distances", "interpolate", "states"]

_NODES = 6  # of an interpolation


class Recorder(Denoiser):
    """Answers like another denoiser and keeps the points at which it is asked.

    Attributes:
        points: (t, x) of each evaluation on the denoiser's path, oldest first.
    """

    def __init__(self, base: Denoiser) -> None:
        super().__init__(base.path)
        self.base, self.forwards, self.classifier_calls = base, base.forwards, base.classifier_calls
        self.points: list[tuple[float, torch.Tensor]] = []

    def _combine(self, x: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        self.points.append((t, x))
        return self.base.combine(x, t, p, r)


def states(path: Path, points: Sequence[tuple[float, torch.Tensor]]) -> tuple[np.ndarray, torch.Tensor]:
    """Points (t, x [batch, ...]) of a path on the linear one: (tau [n] rising, float64; z [n, batch, ...]).

    Where a time comes more than once its last point counts: a solver that corrects a point before it goes on
    evaluates there again.
    """
    last = {}
    for t, x in points:
        total = path.alpha(t) + path.sigma(t)
        last[path.alpha(t) / total] = x / total
    times = np.array(sorted(last))
    return times, torch.stack([last[tau] for tau in times])


def interpolate(times: np.ndarray, z: torch.Tensor, tau: float) -> torch.Tensor:
    """z at tau of a smooth trajectory (times [n], z [n, ...]): Lagrange's polynomial through the nearest nodes."""
    first = int(np.clip(np.searchsorted(times, tau) - _NODES // 2, 0, max(0, len(times) - _NODES)))
    near = times[first : first + _NODES]
    weights = [np.prod([(tau - other) / (own - other) for other in near if other != own]) for own in near]
    return torch.einsum("n,n...->...", torch.tensor(weights).to(z), z[first : first + _NODES])


def distances(times: np.ndarray, z: torch.Tensor, exact: tuple[np.ndarray, torch.Tensor]) -> np.ndarray:
    """Mean square distance per dimension of z [n, batch, ...] from an exact trajectory at its times: [n, batch]."""
    there = torch.stack([interpolate(*exact, tau) for tau in times])
    return np.asarray((z - there).square().flatten(2).mean(2).double().cpu().numpy())


def curvature(times: np.ndarray, z: torch.Tensor) -> np.ndarray:
    """Square deviation of the slopes of trajectories from their chord, per dimension: [n - 1, batch].

    Its mean over time, weighted with the steps, is the curvature of arXiv 2301.12003 (sangyun884/fast-ode logs it as
    straightness), V = int_0^1 E ||(z_1 - z_0) - dz/dtau||^2 dtau, of arXiv 2209.03003, eq. 3: zero where one Euler
    step is exact. As in that code slopes are those of the steps, not of the velocity. Where the states do not
    reach from 0 to 1 the chord's slope takes the place of z_1 - z_0.

    Args:
        times: [n] rising; z: [n, batch, ...].
    """
    steps = torch.tensor(np.diff(times)).to(z).reshape(-1, *[1] * (z.ndim - 1))
    chord = (z[-1] - z[0]) / float(times[-1] - times[0])
    return np.asarray((z.diff(dim=0) / steps - chord).square().flatten(2).mean(2).double().cpu().numpy())
