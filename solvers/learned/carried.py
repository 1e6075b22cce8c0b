"""Learned times at another number of evaluations: the one kind of table that says something of other budgets.

A table of n evaluations has n rows and no other number. Learned times alone are a curve, from the index of a step over
their number to its time; at another number of steps it is read off between the learned points, linearly, and the
solver that the times are of has its own coefficients there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastsample.solvers.grids import BudgetError
from fastsample.solvers.plan import Plan
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile

__all__ = ["at_budget"]


def at_budget(file: TableFile, learned: Plan, wanted: Plan) -> TableFile:
    """The table of the same solver at the learned times, for the budget of another plan.

    Args:
        file: of learned times.
        learned: of the solver that they are of, at the budget of the file and at any times.
        wanted: of the same solver at another budget.

    Raises:
        BudgetError: if the solver cannot spend that budget exactly, or its steps do not begin with an evaluation.
    """
    table, asked = file.table, trace(learned, file.coordinate).times
    outer = [_on_model(learned, t) for t in learned.times[:-1]]
    places = [np.flatnonzero(np.isclose(asked, t, rtol=1e-9, atol=1e-12)) for t in outer]
    if len(asked) != table.nfe or not all(map(len, places)):
        raise BudgetError(f"the steps of {file.solver} of {file.model} cannot be told from its {file.nfe} times")
    nodes = [_on_own(learned, float(table.times[place[0]])) for place in places] + [learned.times[-1]]
    share, new = np.linspace(0, 1, len(nodes)), np.linspace(0, 1, len(wanted.times))
    times = (wanted.times[0], *np.interp(new, share, nodes)[1:-1].tolist(), wanted.times[-1])
    made = trace(replace(wanted, times=times), file.coordinate)
    if made.nfe != wanted.nfe:
        raise BudgetError(f"{wanted.solver.name} at learned times makes {made.nfe} evaluations, not {wanted.nfe}")
    facts = file.model_dump(exclude={"nfe", "coordinate", "times", "end", "a", "b", "w", "path", "format", "version"})
    return TableFile.of(made, file.noise_path, **facts)


def _on_model(plan: Plan, t: float) -> float:
    return t if plan.own == plan.path else plan.path.t_of_lam(plan.own.lam(t))


def _on_own(plan: Plan, t: float) -> float:
    return t if plan.own == plan.path else plan.own.t_of_lam(plan.path.lam(t))
