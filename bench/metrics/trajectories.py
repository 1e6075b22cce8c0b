"""How solvers move: their distance from the exact trajectory along the way, and how far trajectories bend.

Everything is measured where all models look alike, on the linear path z = tau x_0 + (1 - tau) eps. The point x at t of
another path is z = x / (alpha + sigma) at tau = alpha / (alpha + sigma), 0 at pure noise and 1 at data.

The trajectory that a solver walks is its states at its outer times, `outer_states`; `curvature` and `bending` say how
far it is from straight. `pictures` also show the stages between, as `states`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastsample.bench.tree import Walk
from fastsample.models.path import Path
from fastsample.models.recorder import Recorder
from fastsample.solvers.solver import Plan

__all__ = ["bending", "curvature", "distances", "interpolate", "outer_states", "outer_times", "states", "undefined"]

_NODES = 6  # of an interpolation
_SAME = 1e-9  # times of the linear path nearer than this are one
_LONGEST = 1000  # evaluations of a solver whose states are all kept


def states(path: Path, points: Sequence[tuple[float, torch.Tensor]]) -> tuple[np.ndarray, torch.Tensor]:
    """Points (t, x [batch, ...]) of a path on the linear one: (tau [n] rising, float64; z [n, batch, ...]).

    Where a time comes more than once its last point counts: a solver that corrects a point before it goes on
    evaluates there again.
    """
    last = {}
    for t, x in points:
        total = _total(path, t)
        last[path.alpha(t) / total] = x / total
    times = np.array(sorted(last))
    return times, torch.stack([last[tau] for tau in times])


def undefined(plan: Plan) -> str:
    """Why `outer_states` cannot tell the trajectory of a solver; "" if it can."""
    solver = plan.solver
    if solver.adaptive:
        return "each sample has steps of its own"
    if solver.stochastic:
        return "its noise takes it off the ODE"
    if plan.nfe > _LONGEST:
        return f"it makes more than {_LONGEST} evaluations"
    if plan.grid.name == "learned":
        return "a table does not tell which of its points are states"
    asked = _linear_times(plan.path, np.array(plan.asked()))
    between = _linear_times(plan.own, plan.times)[1:-1]
    if any(np.abs(asked - tau).min() > _SAME for tau in between):
        return "it asks the model at other times than those it steps to"
    return ""


def outer_states(
    plan: Plan, start: torch.Tensor, asked: Recorder | Walk, result: torch.Tensor
) -> tuple[np.ndarray, torch.Tensor]:
    """The states of a solver at its outer times, on the linear path: (tau [n] rising, float64; z [n, batch, ...]).

    The first is where it starts, the last the result at its end, or with `denoise` the state at t_data. Between them it
    is the last point of that time at which the solver asked the model: the state itself for Runge-Kutta and multistep
    methods, the predicted point for correctors that do not ask again. Stages inside a step do not count.

    Args:
        plan: of which `undefined` says nothing.
        start, asked, result: what it started from, who answered it, what it returned; on its path.
    """
    times, path = outer_times(plan), plan.path
    factor, shift = plan.entry
    state, points = factor * start, asked.points
    if shift and not plan.afs:  # the first answer is the data prediction that completes the state
        assert asked.first is not None
        state, points = state + shift * asked.first, points[1:]
    found = {0: state / _total(plan.own, plan.times[0])}
    for t, x in points:
        distance = np.abs(times - path.alpha(t) / _total(path, t))
        if distance.min() < _SAME:
            found[int(distance.argmin())] = x / _total(path, t)
    if not plan.denoise:
        found[len(times) - 1] = result / _total(path, plan.end)
    return times, torch.stack([found[i] for i in range(len(times))])


def outer_times(plan: Plan) -> np.ndarray:
    """The outer times of a solver on the linear path, [n] rising."""
    return _linear_times(plan.own, plan.times)


def _linear_times(path: Path, times: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.array([path.alpha(float(t)) / _total(path, float(t)) for t in times])


def _total(path: Path, t: float) -> float:
    return path.alpha(t) + path.sigma(t)


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


def bending(times: np.ndarray, z: torch.Tensor) -> dict[str, np.ndarray]:
    """Per-sample `curvature` and `transport` [batch] of trajectories, float64, per dimension.

    The metric `curvature` is the mean of the first over samples: V of the function of that name, that is the mean
    over steps (weighted with their lengths), samples and dimensions of (v_i - (z_1 - z_0))^2, with v_i the slope of
    step i. With N uniform steps from 0 to 1 it is what sangyun884/fast-ode computes from its N + 1 states. A
    trajectory that stops at tau = 1 - delta (0.999 on the linear path) counts its last state as the one at its time,
    so that slopes and chord are those of the ODE, and V is 1 / (1 - delta)^2 times what the same states give there.
    The protocol is Euler with 100 steps, for the number depends on them: a slope is a mean over its step, and a single
    step is always straight.

    `transport` is (z_1 - z_0)^2. The metric `straightness` is mean `curvature` / mean `transport`, the ratio of the
    two means over samples: S(Z) of arXiv 2209.03003, eq. 3, without dimension; 0 for a straight flow.

    Args:
        times: [n] rising; z: [n, batch, ...].
    """
    chord = (z[-1] - z[0]).double() / float(times[-1] - times[0])
    return {
        "curvature": np.average(curvature(times, z), axis=0, weights=np.diff(times)),
        "transport": np.asarray(chord.square().flatten(1).mean(1).cpu().numpy()),
    }
