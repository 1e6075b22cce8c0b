"""The kinds of learned solvers: what is learned of a coefficient table, and where a fit begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastsample.datasets.names import nearest
from fastsample.models.path import Path
from fastsample.solvers.learned import multistep
from fastsample.solvers.learned import parameters as families
from fastsample.solvers.solver import Plan
from fastsample.solvers.table import trace

__all__ = ["GS", "LEARNED", "Kind", "kind_named"]


@dataclass(frozen=True)
class Kind:
    """A kind of learned solvers.

    Attributes:
        title, paper: as in `Facts`; learned: what is learned, in words.
        parameters: the parameterisation that starts from a plan.
        base: the one solver that it starts from, at some grid; "" for any.
        tried: samplers without grids among which the start is looked for; the base, or those of `starts`, if none.
        best: how many of the best starts are tried, no two of them at one grid.
        plain: whether the base (or Euler's method) at uniform times is tried beside the best start.
        flows: whether it is for paths that begin with noise alone.
        noises: how often the best start is tried again with noise on its numbers: there are many poor optima.
    """

    title: str
    paper: str
    learned: str
    parameters: Callable[[Plan], families.Parameters]
    base: str = ""
    tried: tuple[str, ...] = ()
    best: int = 1
    plain: bool = True
    noises: int = 0
    flows: bool = False

    def check(self, path: Path) -> None:
        """Raise ValueError for a path that it is not for."""
        if self.flows and not path.is_singular(path.t_noise):
            raise ValueError(
                f"{self.title} is for paths that begin with noise alone, where the first evaluation is wasted, and the "
                f"{path.name} path begins with a signal"
            )


def _free(plan: Plan) -> families.Parameters:
    return families.non_stationary(trace(plan, families.coordinate_of(plan.path)))


GS = "gs"  # also what the golden cases of its code call it
_MULTISTEP = (
    "flow-solver:order=4,corrector=none",
    "flow-solver:order=3,corrector=none",
    "dpmpp-3m:lower_order_final=never",
    "flow-solver:order=2",
    "dpmpp-2m",
    "unipc",
    "ipndm",
    "deis",
)


def _free_first(plan: Plan) -> families.Parameters:
    return families.non_stationary(trace(plan, families.coordinate_of(plan.path)), inside=families.INSIDE)


LEARNED = {
    "bns": Kind("BNS", "2403.01329", "every number of the table", _free),
    "bns-first": Kind(
        "BNS, first time free",
        "2403.01329",
        "every number of the table and the time of its first evaluation, on flows",
        _free_first,
        flows=True,
    ),
    "dss": Kind(
        "Differentiable solver search",
        "2505.21114",
        "weights of the velocities that sum to 1, and the times",
        families.consistent,
        base="euler",
    ),
    "rk1-bespoke": Kind(
        "RK1-Bespoke",
        "2310.19075",
        "time and scale of Euler steps",
        lambda plan: families.scale_time(plan, stages=1),
        base="euler",
        noises=10,
    ),
    "rk2-bespoke": Kind(
        "RK2-Bespoke",
        "2310.19075",
        "time and scale of midpoint steps",
        lambda plan: families.scale_time(plan, stages=2),
        base="midpoint",
        noises=10,
    ),
    "times": Kind(
        "Learned times", "2405.15506", "the time grid of a training-free solver", families.learned_times, plain=False
    ),
    "ld3": Kind(
        "LD3",
        "2405.15506",
        "the time grid of a multistep solver, and times of its evaluations apart",
        multistep.decoupled_times,
        tried=_MULTISTEP,
        best=3,
        plain=False,
    ),
    "s4s": Kind(
        "S4S",
        "2502.17423",
        "the coefficients of a linear multistep method",
        multistep.window,
        tried=_MULTISTEP,
        best=3,
        plain=False,
    ),
    "s4s-alt": Kind(
        "S4S-Alt",
        "2502.17423",
        "the coefficients, times and evaluation times of a linear multistep method",
        lambda plan: multistep.window(plan, alternating=True),
        tried=_MULTISTEP,
        best=3,
        plain=False,
    ),
    GS: Kind(
        "GS",
        "2510.17699",
        "all coefficients of the history, the times, and the times of the evaluations",
        multistep.generalized_solver,
        base="dpmpp-3m",
        tried=("dpmpp-3m:lower_order_final=never",),
        best=3,
        plain=False,
    ),
}


def kind_named(name: str) -> Kind:
    """The kind of that name; ValueError for an unknown one."""
    if name not in LEARNED:
        raise ValueError(nearest(name, list(LEARNED), "learned solver"))
    return LEARNED[name]
