"""Solvers of one's own: `FILE.py:NAME`, `package.module:NAME`, or the name under which an installed package offers one.

A function of (denoiser, x, times) under `@register(NAME, Facts(...))` has these facts. One without has those that can
be seen: the prediction that it asks for, its evaluations a step, and its options; its order is not known and counts as
1, and it starts where lambda is finite.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from fastsample.datasets.names import nearest
from fastsample.datasets.own.code import Code, code_named, fault, offered
from fastsample.models.denoiser import Denoiser, Prediction
from fastsample.models.path import VPLinear
from fastsample.solvers.solver import Facts, Solver, registered_apart, solvers, steps

__all__ = ["OwnSolverError", "all_solvers", "find", "solver_named"]

_INTERVALS = 4  # of the run in which a function shows what it asks for


class OwnSolverError(ValueError):
    """A function that is no solver."""


def find(name: str) -> Solver | None:
    """The solver of that name, registered or of one's own; None for any other word.

    Raises:
        ValueError: for Python that cannot be had, or is no solver.
    """
    return solvers().get(name) or _own(name)


def solver_named(name: str) -> Solver:
    """The same; for an unknown name the message offers the nearest ones."""
    if solver := find(name):
        return solver
    raise ValueError(nearest(name, [*solvers(), *offered("solvers")], "solver"))


def all_solvers() -> dict[str, Solver]:
    """Every registered solver, and those that installed packages offer."""
    return solvers() | {name: solver_named(name) for name in offered("solvers")}


def _own(name: str) -> Solver | None:
    with registered_apart() as apart:
        code = code_named(name, "solvers")
    _apart.extend(apart)
    return _solver(code, name) if code else None


_apart: list[Solver] = []  # what was registered by files of users


@cache
def _solver(code: Code, name: str) -> Solver:
    known = next((solver for solver in [*_apart, *solvers().values()] if solver.solve is code.value), None)
    return Solver(**{**vars(known or _seen(code)), "name": name, "solve": code.value, "code": code.told})


class _Asked(Denoiser):
    """Answers 0 and remembers the first prediction that it is asked for."""

    first: Prediction | None = None

    def predict(self, x: Any, t: float, prediction: Prediction) -> Any:
        self.first = self.first or prediction
        return super().predict(x, t, prediction)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return 0.0 * x


def _seen(code: Code) -> Facts:
    """What a run on a number shows of a function."""
    path, made = VPLinear(), list[int]()
    try:
        stochastic = "noise" in inspect.signature(code.value).parameters
        for n in (_INTERVALS - 1, _INTERVALS):
            denoiser = _Asked(path)
            times = tuple(path.t_noise + (path.t_data - path.t_noise) * i / n for i in range(n + 1))
            float(code.value(denoiser, 1.0, times, **({"noise": lambda i: 0.0} if stochastic else {})))
            made.append(denoiser.nfe)
    except Exception as error:  # of a user's code
        needs = "a solver is a function of (denoiser, x, times) that adds vectors and multiplies them with numbers"
        raise OwnSolverError(f"{code.name} is no solver: {needs}; {fault(error)}") from error
    each = made[1] - made[0]
    if each < 1:
        raise OwnSolverError(
            f"{code.name} is no solver: it asks the denoiser as often in 4 steps as in 3, {made[1]} times"
        )
    return Facts(
        title=getattr(code.value, "__name__", code.name), paper="", coordinate=denoiser.first or "x0", order=1,
        grids=("logsnr", "uniform"), flow_grid="uniform", scheduler=steps(each, made[1] - _INTERVALS * each),
        stochastic=stochastic,
    )  # fmt: skip
