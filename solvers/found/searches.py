"""The searches for time grids: GITS (arXiv 2405.11326), OSS (2503.21774) and DMN (2402.17376).

GITS and OSS choose among the points of a teacher's fine grid, GITS by the costs of single Euler steps from its states,
OSS by following Euler steps from step to step. They are done where an Euler step is a method's own first-order step:
on noise-to-signal ratios (DDIM), on CondOT in its time. DMN minimises a bound that knows the path alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize

from fastsample.models.path import Path
from fastsample.solvers.adams import combine, equal_weights
from fastsample.solvers.found.statistics import gauss

__all__ = ["Trajectory", "dmn", "dmn_bound", "follow", "gits", "gits_costs", "oss", "oss_medians", "oss_official"]

Slope = Callable[[torch.Tensor, float], torch.Tensor]
_LINE = gauss(24)
_NODES, _WEIGHTS = _LINE.nodes, _LINE.weights  # on [0, 1]


@dataclass(frozen=True)
class Trajectory:
    """A teacher's run: states [m + 1, batch, ...] at times from noise to data, slopes [m, ...] at all but the last."""

    times: tuple[float, ...]
    states: torch.Tensor
    slopes: torch.Tensor


def follow(slope: Slope, x: torch.Tensor, times: Sequence[float], order: int) -> Trajectory:
    """iPNDM of that order from x at the first time; of order 1 it is Euler's method."""
    states, slopes = [x], list[torch.Tensor]()
    for s, t in pairwise(times):
        slopes.append(slope(states[-1], s))
        newest = slopes[::-1][:order]
        weights = equal_weights(len(newest))
        states.append(states[-1] + (t - s) * combine(weights, newest))
    return Trajectory(tuple(times), torch.stack(states), torch.stack(slopes))


def gits_costs(teacher: Trajectory, metric: Literal["dev", "l1", "l2"] = "dev") -> np.ndarray:
    """C[i, j] of an Euler step from the teacher's state i to time j > i; infinite elsewhere.

    l1, l2: mean distance from the teacher's state j. dev: how much farther than that one the result lies from the line
    through the trajectory's ends, in the mean; it may be negative.
    """
    x, d = teacher.states.double().flatten(2), teacher.slopes.double().flatten(2)
    last = len(x) - 1
    line = (x[last] - x[0]) / (x[last] - x[0]).norm(dim=1, keepdim=True)

    def away(y: torch.Tensor) -> torch.Tensor:
        off = y - x[0]
        return (off - (off * line).sum(-1, keepdim=True) * line).norm(dim=-1).mean(-1)

    bend = away(x)
    bend[last] = 0.0
    costs = np.full((last + 1, last + 1), np.inf)
    for i in range(last):
        to = torch.tensor([t - teacher.times[i] for t in teacher.times[i + 1 :]], dtype=x.dtype, device=x.device)
        y = x[i] + to[:, None, None] * d[i]
        far = y - x[i + 1 :]
        cost = away(y) - bend[i + 1 :] if metric == "dev" else far.norm(p=int(metric[1]), dim=-1).mean(-1)
        costs[i, i + 1 :] = cost.cpu().numpy()
    return costs


def gits(costs: np.ndarray, steps: int, later: float = 1.15) -> list[int]:
    """The indices of the cheapest `steps` steps from the first point to the last; a step's successors weigh `later`.

    Raises:
        ValueError: for more steps than the teacher has.
    """
    last = len(costs) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"a teacher of {last} steps has no {steps} of them")
    value, choices = costs[:, last].copy(), []
    for _ in range(steps - 1):
        total = costs[:, :last] + later * value[:last]
        choices.append(total.argmin(1))
        value = total.min(1)
    found = [0]
    for choice in reversed(choices):
        found.append(int(choice[found[-1]]))
    return [*found, last]


def oss(slope: Slope, teacher: Trajectory, steps: int) -> list[list[int]]:
    """For each sample the `steps` Euler steps on points of the teacher that end nearest to its end.

    State z_k(j) after k steps at point j is the one nearest to the teacher's among those from any z_(k-1)(i), i before
    j. Indices run from the data end (0) to the noise end.

    Raises:
        ValueError: for more steps than the teacher has.
    """
    times, x, last = teacher.times, teacher.states, len(teacher.times) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"a teacher of {last} steps has no {steps} of them")
    batch, at = x.shape[1], torch.tensor(times, dtype=x.dtype, device=x.device)
    states, reached, before = x[:1], range(1), list[torch.Tensor]()
    for step in range(1, steps + 1):
        to = range(last if step == steps else step, last - steps + step + 1)
        best = torch.full((len(to), batch), math.inf, dtype=torch.float64, device=x.device)
        came = torch.zeros((len(to), batch), dtype=torch.int64, device=x.device)
        nearest = torch.zeros_like(x[to.start : to.stop])
        for i, z in zip(reached, states, strict=True):
            low = max(to.start, i + 1)
            span, here = slice(low, to.stop), slice(low - to.start, None)
            y = z + (at[span] - times[i]).reshape(-1, *[1] * z.ndim) * slope(z, times[i])
            cost = (y - x[span]).double().square().flatten(2).mean(2)
            better = cost < best[here]
            best[here] = torch.where(better, cost, best[here])
            came[here] = torch.where(better, i, came[here])
            nearest[here] = torch.where(better.reshape(*better.shape, *[1] * (z.ndim - 1)), y, nearest[here])
        states, reached = nearest, to
        before.append(torch.cat([came.new_zeros((to.start, batch)), came]))
    rows = torch.arange(batch, device=x.device)
    found = [torch.full((batch,), last, device=x.device)]
    for came in reversed(before):
        found.append(came[found[-1], rows])
    return [[last - int(i[row]) for i in found] for row in range(batch)]


def oss_official(slope: Slope, teacher: Trajectory, steps: int) -> list[list[int]]:
    """The published code's search, for comparison: the nodes but the data end, of which the first may be any.

    Every point holds the noise at the first stage, and costs, origins and states of a stage are kept in the next one
    where nothing is strictly better: a list may repeat a node, and start with noise at a time that has less of it.
    """
    times, x, last = teacher.times[::-1], teacher.states.flip(0), len(teacher.times) - 1
    found = []
    for row in range(x.shape[1]):
        states = [x[last, row : row + 1]] * (last + 1)
        best, came, stages = [math.inf] * (last + 1), [last] * (last + 1), list[list[int]]()
        for _ in range(steps):
            moved, came = list(states), list(came)
            for i in range(last, 0, -1):
                v = slope(states[i], times[i])
                for j in range(i):
                    y = states[i] + (times[j] - times[i]) * v
                    cost = float((y - x[j, row]).double().square().mean())
                    if cost < best[j]:
                        best[j], came[j], moved[j] = cost, i, y
            states = moved
            stages.append(came)
        nodes = [0]
        for stage in reversed(stages):
            nodes.append(stage[nodes[-1]])
        found.append(nodes[1:])
    return found


def oss_medians(lists: Sequence[Sequence[int]]) -> list[int]:
    """One list for all samples: of each place the lower integer median."""
    columns, half = [sorted(column) for column in zip(*lists, strict=True)], len(lists) // 2
    return [(column[half] + column[half - 1]) // 2 for column in columns]


def dmn_bound(path: Path, lam: Sequence[float], trunc: int = 3) -> float:
    """DMN's bound of the error of a multistep method of order 3 (1 and 2 at both ends) on these lambdas.

    With J_(s,i) = int e^lambda L_i over interval s, L_i the Lagrange basis of its nodes, and w_i = sigma_i^2 / alpha_i:
    the sum of |(w_i J_(s,i))_i| over intervals before `trunc` and those of order 1, and of |sum_s w_i J_(s,i)| over
    nodes for the others.
    """
    n = len(lam) - 1
    times = [path.t_of_lam(value) for value in lam]
    weight = np.array([path.sigma(t) ** 2 / path.alpha(t) for t in times[:-1]])
    shared, bound = np.zeros(n), 0.0
    for s in range(n):
        order = min(3, s + 1, n - s)
        h = lam[s + 1] - lam[s]
        powers = np.array([(h * _NODES) ** k for k in range(order)])
        moments = powers @ (_WEIGHTS * np.exp(h * _NODES)) * (h * math.exp(lam[s]))
        nodes = np.array([lam[s - k] - lam[s] for k in range(order)])
        parts = np.zeros(n)
        parts[s - np.arange(order)] = np.linalg.solve(np.vander(nodes, increasing=True).T, moments)
        parts *= weight
        if order > 1 and s >= trunc:
            shared += parts
        else:
            bound += float(np.sqrt(parts @ parts))
    return bound + float(np.abs(shared).sum())


def dmn(path: Path, starts: Sequence[Sequence[float]], trunc: int = 3) -> list[float]:
    """The lambdas of the lowest bound that is found from several lists of the same ends; there are many minima.

    The steps are positive by their logarithms; the bound has kinks, so Nelder and Mead's method goes on from where
    quasi-Newton steps end.
    """
    first, last = starts[0][0], starts[0][-1]

    def lambdas(z: np.ndarray) -> np.ndarray:
        share = np.exp(np.r_[z, 0.0] - max(z.max(initial=0.0), 0.0))
        return np.r_[first, first + (last - first) * np.cumsum(share[:-1]) / share.sum(), last]

    def bound(z: np.ndarray) -> float:
        lam = [float(value) for value in lambdas(z)]
        apart = min(b - a for a, b in pairwise(lam))
        return dmn_bound(path, lam, trunc) if apart > 1e-6 * (last - first) else 1e9

    best, reached = np.array(starts[0]), math.inf
    for start in starts:
        steps = np.diff(start)
        z = np.log(steps[:-1] / steps[-1])
        if len(z):
            z = minimize(bound, z, method="BFGS", options={"maxiter": 60}).x
            z = minimize(bound, z, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 600}).x
        if (value := bound(z)) < reached:
            best, reached = lambdas(z), value
    return [float(value) for value in best]
