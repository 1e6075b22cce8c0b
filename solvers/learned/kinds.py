"""The kinds of learned solvers: what is learned of a coefficient table, and where a fit begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastsample.datasets.names import nearest
from fastsample.solvers.learned.parameters import (
    Parameters,
    consistent,
    coordinate_of,
    learned_times,
    non_stationary,
    scale_time,
)
from fastsample.solvers.solver import Plan
from fastsample.solvers.table import trace

__all__ = ["LEARNED", "Kind", "kind_named"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of learned solvers.

    Attributes:
        title, paper: as in `Facts`; learned: what is learned, in words.
        parameters: the parameterisation that starts from a plan.
        base: the one solver that it starts from, at some grid; "" for any.
        plain: whether the base (or Euler's method) at uniform times is tried beside the best start.
        noises: how often the best start is tried again with noise on its numbers: of many poor optima.
    """

    title: str
    paper: str
    learned: str
    parameters: Callable[[Plan], Parameters]
    base: str = ""
    plain: bool = True
    noises: int = 0


LEARNED = {
    "bns": Kind(
        title="BNS",
        paper="2403.01329",
        learned="every number of the table",
        parameters=lambda plan: non_stationary(trace(plan, coordinate_of(plan.path))),
    ),
    "dss": Kind(
        title="Differentiable solver search",
        paper="2505.21114",
        learned="weights of the velocities that sum to 1, and the times",
        parameters=consistent,
        base="euler",
    ),
    "rk1-bespoke": Kind(
        title="RK1-Bespoke",
        paper="2310.19075",
        learned="time and scale of Euler steps",
        parameters=lambda plan: scale_time(plan, 1),
        base="euler",
        noises=10,
    ),
    "rk2-bespoke": Kind(
        title="RK2-Bespoke",
        paper="2310.19075",
        learned="time and scale of midpoint steps",
        parameters=lambda plan: scale_time(plan, 2),
        base="midpoint",
        noises=10,
    ),
    "times": Kind(
        title="Learned times",
        paper="2405.15506",
        learned="the time grid of a training-free solver",
        parameters=learned_times,
        plain=False,
    ),
}


def kind_named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ValueError: for an unknown one.
    """
    if name not in LEARNED:
        raise ValueError(nearest(name, list(LEARNED), "learned solver"))
    return LEARNED[name]
