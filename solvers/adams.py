"""Adams methods on variable steps: weights of the interpolating polynomial, and the multistep loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyfromroots

from fastsample.models.path import Path
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Schedule, Scheduler

__all__ = ["adams_weights", "combine", "equal_weights", "integrate", "lagrange", "multistep"]


def lagrange(nodes: Sequence[float]) -> list[np.ndarray]:
    """The Lagrange basis over the nodes: each polynomial's coefficients, lowest power first."""
    others = [[m for i, m in enumerate(nodes) if i != j] for j in range(len(nodes))]
    return [polyfromroots(rest) / math.prod(node - m for m in rest) for node, rest in zip(nodes, others, strict=True)]


def adams_weights(
    nodes: Sequence[float], s: float, t: float, moment: Callable[[int], float] = lambda k: 1 / (k + 1)
) -> list[float]:
    """W_j = integral from s to t of the Lagrange polynomial l_j over the nodes; they sum to t - s.

    Nodes at s and before give Adams-Bashforth, with t among them Adams-Moulton.

    Args:
        nodes: distinct times at which slopes are known.
        s, t: the step.
        moment: integral from 0 to 1 of u^k; another value stands for a method that errs there.
    """
    h = t - s
    # In (node - s)/h the coefficients of Adams-Bashforth polynomials are all of one sign: no cancellation.
    basis = lagrange([(node - s) / h for node in nodes])
    return [h * sum(float(c) * moment(k) for k, c in enumerate(polynomial)) for polynomial in basis]


def equal_weights(points: int) -> list[float]:
    """Adams-Bashforth weights on equal steps of length 1, newest first."""
    return adams_weights([-float(j) for j in range(points)], 0.0, 1.0)


def combine(weights: Sequence[float], vectors: Sequence[Any]) -> Any:
    """sum_j w_j v_j."""
    return sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))


def multistep(highest: int) -> Scheduler:
    """A scheduler of one evaluation a step whose option `order`, passed on to the solver, runs from 1 to `highest`."""

    def schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, order: int = highest) -> Schedule:
        return Schedule(grid(path, nfe, t_start, path.t_data), {"order": order})

    return schedule


def integrate(
    slope: Callable[[Any, float], Any],
    x: Any,
    times: Sequence[float],
    points: int,
    weights: Callable[[Sequence[float], float, float], Sequence[float]],
) -> Any:
    """x' = x + sum_j weights_j f_j over the last `points` slopes, fewer in the first steps.

    `weights(nodes, s, t)` gets the nodes newest first, nodes[0] = s.
    """
    nodes, values = list[float](), list[Any]()
    for s, t in pairwise(times):
        nodes, values = [s, *nodes][:points], [slope(x, s), *values][:points]
        x = x + combine(weights(nodes, s, t), values)
    return x
