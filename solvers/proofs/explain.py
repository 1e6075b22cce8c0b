"""`fastsample explain`: a solver's coefficient table with what can be read off it.

Two rules tell what a row would make of a simple model. If the prediction f (the data prediction, or the velocity where
the path starts at alpha = 0) does not depend on x, the sampling ODE can be solved by hand, and with it each row:

    f = 1:              x_i = phi_i x_T + psi_i
    f linear in u:      x_i = phi_i x_T + chi_i        (u = lambda - lambda_T, or t - T for the velocity)

so that a row which is exact there has a_i = phi_i, sum_j b_ij = psi_i (the rule of order 0), and
sum_j b_ij u_j = chi_i (order 1). For the data prediction, phi = sigma_i / sigma_T, psi = alpha_i - alpha_T phi and
chi = alpha_i (u_i - 1) + alpha_T phi; for the velocity phi = 1, psi = u_i and chi = u_i^2 / 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsample.models.denoiser import Prediction
from fastsample.models.path import Path
from fastsample.solvers.learned.parameters import coordinate_of, non_stationary
from fastsample.solvers.proofs.claims import Claim, errors, slope
from fastsample.solvers.proofs.stability import Stability, stability
from fastsample.solvers.solver import solvers
from fastsample.solvers.table import Table, play, trace_function
from fastsample.solvers.table_file import TableFile

__all__ = ["Explanation", "Row", "explain", "sum_rules"]

EXACT = 1e-10  # a defect below is rounding


@dataclass(frozen=True)
class Row:
    """A row of a table: the point of an evaluation, or the result.

    Attributes:
        t, alpha, sigma, lam: its time on the path; lam is None where it is infinite.
        a, b, w: coefficients of x_T, of the earlier predictions, and of the noises of a stochastic solver.
        order0, order1: defects of the two rules; see the module.
    """

    t: float
    lam: float | None
    alpha: float
    sigma: float
    a: float
    b: list[float]
    w: list[float]
    order0: float
    order1: float


@dataclass(frozen=True)
class Explanation:
    """What a table says.

    Attributes:
        solver, title, paper, model, path, coordinate, nfe: as in the table file.
        forwards: network calls of one run; each row but the last costs one evaluation.
        rows: nfe evaluations and the result.
        parameters, convention: numbers that are free, and how they are counted.
        order, order_note: order of convergence measured on an exact mixture (None where there is none), and how.
        stability: what it does to errors, and how stiff a model it bears.
        trained_on, trained_with: what decided its numbers beside the path, and with which seeds and evaluations.
        training: record of a learned table.
    """

    solver: str
    title: str
    paper: str
    model: str
    path: str
    coordinate: str
    nfe: int
    forwards: int
    rows: list[Row]
    parameters: int
    convention: str
    order: float | None
    order_note: str
    stability: Stability
    trained_on: str
    trained_with: str
    training: dict[str, Any] | None

    def verdict(self, rule: str) -> str:
        """Which rows keep a rule (`order0` or `order1`), in words."""
        defects = [abs(getattr(row, rule)) for row in self.rows]
        worst = int(np.argmax(defects))
        if defects[worst] <= EXACT:
            return "every row is exact"
        which = "the result" if worst == self.nfe else f"row {worst}"
        count = sum(defect <= EXACT for defect in defects)
        most = f"at most by {defects[worst]:.1e} ({which})"
        return f"{count} of {len(defects)} rows are exact; off by {defects[-1]:.1e} in the result, {most}"


def explain(file: TableFile) -> Explanation:
    """Explain a table; the order of a registered solver is measured, which takes seconds."""
    path = file.noise_path
    told = in_coordinate(file, coordinate_of(path))
    table, defects = told.table, sum_rules(told.table, path)
    rows = []
    for i, t in enumerate([*told.times, told.end]):
        lam = path.lam(t) if math.isfinite(path.lam(t)) else None
        w = told.w[i] if told.w else []
        rows.append(Row(t, lam, path.alpha(t), path.sigma(t), told.a[i], told.b[i], w, *map(float, defects[i])))
    order, note = _order(file, path)
    if file.training:
        free, convention = file.training.free_parameters, file.training.convention
    elif file.w:
        free, convention = 0, "nothing is learned; a stochastic table cannot start a distillation"
    else:
        free, convention = 0, f"nothing is learned; BNS from here would have {_free(table)}"
    return Explanation(
        file.solver, file.title, file.paper, file.model, path.name, table.coordinate, table.nfe,
        _forwards(file, path), rows, free, convention, order, note, stability(table, path),
        file.trained_on, file.trained_with, file.training.model_dump() if file.training else None,
    )  # fmt: skip


def _forwards(file: TableFile, path: Path) -> int:
    """Network calls of one run: two of each evaluation where guidance acts."""
    low, high = file.guided_within
    acts = [(low or 0.0) < path.nsr(t) <= (math.inf if high is None else high) for t in file.times]
    return file.nfe + (sum(acts) if file.guidance else 0)


def in_coordinate(file: TableFile, coordinate: Prediction) -> TableFile:
    """The same solver with its rows in another prediction.

    Raises:
        ValueError: where the path has a time at which that prediction says nothing, as eps at alpha = 0.
    """
    if coordinate == file.coordinate:
        return file
    path = file.noise_path
    try:
        table = trace_function(
            path, coordinate, lambda denoiser, x, noise: play(file.table, denoiser, x, noise), file.end
        )
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from None
    facts = {
        "solver", "title", "paper", "model", "model_sha256", "model_conditions", "model_given", "guidance", "guide",
        "guided_within", "options", "training", "found_on", "found_with",
    }  # fmt: skip
    return TableFile.of(table, path, **file.model_dump(include=facts))


def sum_rules(table: Table, path: Path) -> np.ndarray:
    """Defects [n + 1, 2] of every row under a constant and under a linear prediction; see the module.

    The first is the larger of those of a_i and of sum_j b_ij, the second that of sum_j b_ij u_j.

    Args:
        table: in x0, or in the velocity.
        path: of its times.
    """
    times, first = [*map(float, table.times), table.end], path.t_noise
    if table.coordinate == "velocity":
        u = np.array(times) - first
        phi, psi, chi = np.ones(len(u)), u, u**2 / 2
    else:
        alpha, u = np.array([path.alpha(t) for t in times]), np.array([path.lam(t) for t in times]) - path.lam(first)
        phi = np.array([path.sigma(t) for t in times]) / path.sigma(first)
        psi, chi = alpha - path.alpha(first) * phi, alpha * (u - 1) + path.alpha(first) * phi
    order0 = np.stack([table.a - phi, table.b.sum(1) - psi])
    order0 = np.take_along_axis(order0, np.abs(order0).argmax(0)[None], 0)[0]
    order1 = np.where(np.isfinite(u), table.b @ u[:-1] - chi, 0.0)  # at lambda = inf the rule says nothing
    return np.stack([order0, order1], axis=1)


def _order(file: TableFile, path: Path) -> tuple[float | None, str]:
    solver = solvers().get(file.solver)
    if file.training or solver is None:
        return None, "none: a table of fixed numbers has no grid to refine"
    if solver.stochastic:
        return None, "not measured: stochastic"
    problem = "gmm2d-flow" if path.t_data > path.t_noise else "gmm2d"
    claim = Claim(solver, file.options)
    note = f"slope of the error against NFE on {problem}, on its own grid; it claims {claim.order}"
    return slope(errors(claim, problem)), note


def _free(table: Table) -> str:
    try:
        family = non_stationary(table)
    except ValueError as error:
        return f"no start: {error}"
    return f"{family.free} {family.convention}"
