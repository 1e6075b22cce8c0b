"""Single-step budgets: steps of order 1 to 3 that spend a budget of evaluations, and where they lie.

A step of order p costs p evaluations. The agile split is that of DPM-Solver-fast (arXiv 2206.00927,
appendix C), which SciRE-Solver took over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from fastsample.models.path import Path
from fastsample.solvers.grids import BudgetError, Grid, GridError

__all__ = ["agile_orders", "exact_times", "fixed_orders", "interior_ratios", "outer_times"]


def agile_orders(nfe: int, order: int) -> list[int]:
    """Orders, summing to nfe, that spend every evaluation: full ones first.

    With order 3 a budget divisible by 3 ends in [2, 1], so that the last step is always of lower order.

    Raises:
        BudgetError: for a budget below the order.
    """
    full, rest = _divide(nfe, order)
    if order == 3 and rest == 0:
        return [3] * (full - 1) + [2, 1]
    return [order] * full + ([rest] if rest else [])


def fixed_orders(nfe: int, order: int) -> list[int]:
    """floor(nfe / order) steps of one order; fewer evaluations than nfe where it does not divide.

    Raises:
        BudgetError: for a budget below the order.
    """
    return [order] * _divide(nfe, order)[0]


def _divide(nfe: int, order: int) -> tuple[int, int]:
    if nfe < order:
        raise BudgetError(f"order {order} needs at least {order} evaluations, not {nfe}")
    return divmod(nfe, order)


def outer_times(path: Path, t_start: float, grid: Grid, orders: Sequence[int]) -> tuple[float, ...]:
    """The len(orders) + 1 times between which the steps run.

    Steps of equal cost, and any steps on the logSNR grid, take the grid of as many intervals; otherwise
    the grid of one interval per evaluation is thinned to the cumulative orders.
    """
    if grid.name == "logsnr" or len(set(orders)) == 1:
        return exact_times(path, t_start, grid, len(orders))
    times = exact_times(path, t_start, grid, sum(orders))
    return tuple(times[i] for i in accumulate(orders, initial=0))


def exact_times(path: Path, t_start: float, grid: Grid, n: int) -> tuple[float, ...]:
    """The times of exactly n intervals.

    Raises:
        BudgetError: for a grid that has another number of them.
    """
    times = grid(path, n, t_start, path.t_data)
    if len(times) != n + 1:
        raise BudgetError(f"grid {grid} has {len(times) - 1} intervals, and orders were given to {n}")
    return times


def interior_ratios(
    path: Path, grid: Grid, order: int, s: float, t: float, measure: Callable[[float], float]
) -> tuple[float, ...]:
    """The grid applied again on [s, t] with `order` intervals: its interior points as fractions of `measure`.

    Raises:
        GridError: where the measure is infinite at t, or the grid is for whole runs.
    """
    if order == 1:
        return ()
    if grid.name.startswith("integer-"):
        raise GridError(f"grid {grid} is for whole runs, and is to be applied again inside a step of order {order}")
    if not math.isfinite(measure(t)):
        raise GridError(
            f"its last step, of order {order}, ends at clean data, where lambda is infinite: it has no points inside; "
            "take a grid that ends before"
        )
    values = [measure(u) for u in grid(path, order, s, t)]
    return tuple((value - values[0]) / (values[-1] - values[0]) for value in values[1:-1])
