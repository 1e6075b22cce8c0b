"""Proofs about every registered solver, on the exact mixtures: order, evaluations, table, parity.

The order of convergence is the slope of log RMS error over log NFE, fitted over at least four budgets,
on `gmm2d` (VP-linear) and `gmm2d-flow` (CondOT), against RK4 with 8,000 evaluations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import normal
from fastsample.models.path import LinearFlow, Path, VPLinear
from fastsample.models.recorder import Recorder
from fastsample.solvers.proofs.golden import NotASolver, cases, compare, solver_of
from fastsample.solvers.solver import Plan, Solver, get, solvers
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import play, trace

__all__ = [
    "PROBLEMS",
    "TOLERANCE",
    "Claim",
    "Proof",
    "claims",
    "converges",
    "errors",
    "golden_summary",
    "problem",
    "prove",
    "slope",
    "start",
    "table_error",
]

# CondOT starts at 0.001: methods in lambda start there in any case, and what their way there is off by (1e-7) is no
# part of their order.
PROBLEMS: dict[str, Callable[[], Path]] = {"gmm2d": VPLinear, "gmm2d-flow": lambda: LinearFlow(t_noise=1e-3)}
BUDGETS = (192, 288, 432, 648)  # ratios of 1.5
FINER = (972, 1458, 2187)  # added where a method is not yet asymptotic: its order is what it tends to
FLOOR = 3e-12  # below it float64 rounding and the truth take part
TOLERANCE = 0.15  # of the fitted slope, below the claim
POINTS = 24


@dataclass(frozen=True)
class Claim:
    """A solver with options, and the order of convergence that it claims."""

    solver: Solver
    options: Mapping[str, Any]

    @property
    def order(self) -> int:
        return self.solver.claimed_order(**self.options)

    def __str__(self) -> str:
        return str(Spec(self.solver.name, self.options))


@dataclass(frozen=True)
class Proof:
    """What was measured of a claim.

    Attributes:
        errors: per problem, (NFE made, RMS error) of each budget.
        orders: per problem, the fitted slope.
        table_error: difference between the solver and its table at NFE 12, the larger of both problems; 0 where its
            coefficients depend on the sample, and there is none.
        asked, made: budget and evaluations at NFE 12.
    """

    claim: Claim
    errors: Mapping[str, list[tuple[int, float]]]
    orders: Mapping[str, float]
    table_error: float
    asked: int
    made: int

    @property
    def holds(self) -> bool:
        """The orders are reached, the table is the solver, and the budget was kept."""
        slopes = all(converges(self.claim, order) for order in self.orders.values())
        return slopes and self.table_error <= 1e-12 and self.made <= self.asked


def claims(chosen: Iterable[Solver] | None = None) -> Iterator[Claim]:
    """Every fixed-grid deterministic solver of those chosen, by default all, with each of its variants."""
    for solver in solvers().values() if chosen is None else chosen:
        if not (solver.adaptive or solver.stochastic):
            for options in solver.variants:
                yield Claim(solver, options)


def problem(name: str) -> Denoiser:
    """The analytic denoiser of that name."""
    return ring_mixture(PROBLEMS[name]())


def start(points: int = POINTS) -> torch.Tensor:
    """Fixed starting noise [points, 2], float64."""
    return normal(20231, range(points), (2,)).double()


@cache
@torch.inference_mode()
def truth(name: str) -> torch.Tensor:
    """The reference end points of `start()`."""
    denoiser = problem(name)
    return torch.as_tensor(get("rk4").plan(denoiser.path, 8000, "quadratic")(denoiser, start()))


@torch.inference_mode()
def errors(claim: Claim, name: str) -> list[tuple[int, float]]:
    """(NFE made, RMS error) for each of `BUDGETS`, and of `FINER` as long as the claim is not reached."""
    found: list[tuple[int, float]] = []
    for budget in (*BUDGETS, *FINER):
        if len(found) >= len(BUDGETS) and converges(claim, slope(found)):
            break
        denoiser = problem(name)
        plan = claim.solver.plan(denoiser.path, budget, **claim.options)
        result = plan(denoiser, start())
        found.append((denoiser.nfe, float((result - truth(name)).square().mean().sqrt())))
    return found


def slope(points: list[tuple[int, float]]) -> float:
    """Order fitted over the four finest budgets whose error is above the floor of rounding."""
    usable = [(nfe, error) for nfe, error in points if error > FLOOR][-4:]
    if len(usable) < 2:
        return float("inf")
    nfe, error = np.log(np.array(usable)).T
    return float(-np.polyfit(nfe, error, 1)[0])


def converges(claim: Claim, order: float) -> bool:
    """Whether a fitted slope reaches the claim; a claim of 0 says that the method does not converge."""
    return claim.order == 0 or order >= claim.order - TOLERANCE


def table_error(plan: Plan, denoiser: Denoiser) -> float:
    """Max abs difference between a plan and its table, relative to the largest sum of a row's terms if above 1.

    A noise prediction on CondOT starts with 1/alpha = 1000, so its table sums terms of that size: what two
    orders of summation can agree to in float64 is relative to them.
    """
    x = plan.path.prior_std * start()
    asked = Recorder(denoiser)
    table, result = trace(plan), plan(asked, x)
    answers = [float(denoiser.predict(point, t, table.coordinate).abs().max()) for t, point in asked.points]
    size = max(1.0, float((np.abs(table.a) * float(x.abs().max()) + np.abs(table.b) @ answers).max()))
    return float((play(table, denoiser, x) - result).abs().max()) / size


def prove(claim: Claim, budget: int = 12) -> Proof:
    """Measure a claim; see `Proof`."""
    measured = {name: errors(claim, name) for name in PROBLEMS}
    worst, made = 0.0, 0
    for name in PROBLEMS:
        denoiser = problem(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = claim.solver.plan(denoiser.path, budget, **claim.options)
        worst = max(worst, table_error(plan, denoiser) if plan.tabled else 0.0)
        made = max(made, len(plan.asked()))
    return Proof(claim, measured, {name: slope(points) for name, points in measured.items()}, worst, budget, made)


def golden_summary(
    folder: FilePath, names: Collection[str] | None = None, progress: Callable[[str], None] = lambda _: None
) -> dict[str, tuple[int, int, float]]:
    """Per golden file: (cases, cases that fail, largest difference of a result).

    Args:
        names: of the solvers whose cases count; all where None.
        progress: called with a line of what is compared.
    """
    summary: dict[str, tuple[int, int, float]] = {}
    chosen = [(name.partition("|")[0], case) for name, case in cases(folder) if not names or solver_of(case) in names]
    files = list(dict.fromkeys(file for file, _ in chosen))
    for file, case in chosen:
        progress(f"parity: golden file {files.index(file) + 1} of {len(files)}, {file}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # official grids that exceed their budget say so
                parity = compare(case)
        except NotASolver:
            continue
        count, failed, worst = summary.get(file, (0, 0, 0.0))
        summary[file] = count + 1, failed + (not parity.agrees), max(worst, parity.error)
    return summary
