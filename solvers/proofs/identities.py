"""Which named solvers are one method: found by numbers, on exact problems.

Each registered solver of a fixed grid is unrolled on each of `PROBLEMS` into its coefficient table, at `BUDGETS` (few
and many evaluations) and on `GRIDS`, which are the same noise-to-signal ratios whatever path a solver integrates on.
Solvers whose tables agree, in evaluation times and in coefficients, wherever both of them run, are one method there on
every model. Of those that remain, whose tables differ or that have none, the results on the exact mixture are compared;
what agrees is one on the problem, which is less.

What is compared: the proven option sets of the registry, and beside them each value of each closed choice, each switch,
and 0 for each number that may be 0, one option at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.noise import normal
from fastsample.models.path import Edm, LinearFlow, Path, VPLinear
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.solver import COMMON, Plan, Solver, solvers
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace

__all__ = ["BUDGETS", "GRIDS", "PROBLEMS", "TOLERANCE", "identities", "named"]

PROBLEMS: dict[str, Path] = {"gmm2d (VP)": VPLinear(), "gmm2d (EDM)": Edm(), "gmm2d (flow)": LinearFlow()}
GRIDS = ("logsnr", "karras")
BUDGETS: tuple[tuple[int, ...], ...] = ((5, 12), (16,))  # from 15 on many methods have no last step of lower order
TOLERANCE = 1e-9  # of table entries relative to the largest of the table above 1, and of results
_POINTS = 16
_FEWEST = 2  # grids and budgets on which both must run

_Key = tuple[str, int]  # grid, budget
_Numbers = Mapping[str, Mapping[_Key, np.ndarray]]  # of methods, where they run
_Scope = tuple[str, tuple[int, ...]]  # problem, budgets
_Found = dict[str, tuple[_Numbers, list[list[str]]]]  # by table and by result: numbers and classes


def named() -> list[Spec]:
    """What is compared: every registered solver of a fixed grid with its option sets."""
    found: dict[str, Spec] = {}
    for solver in solvers().values():
        if not solver.adaptive:
            for options in _option_sets(solver):
                settings = tuple(sorted((key, repr(value)) for key, value in solver.settings(options).items()))
                found.setdefault(f"{solver.name} {settings}", Spec(solver.name, options))
    return list(found.values())


def _option_sets(solver: Solver) -> Iterator[dict[str, Any]]:
    # Statistics of a model are of no exact problem; the trivial ones are.
    base = {"statistics": "data"} if solver.trained_on == "statistics" else {}
    for options in solver.variants:
        yield base | dict(options)
    for key, value in solver.known_options.items():
        if key in COMMON or key == "statistics":
            continue
        low, high = solver.ranges.get(key, (0, -1))
        values: Iterable[Any] = solver.choices.get(key, ())
        if isinstance(value, bool):
            values = (not value,)
        elif isinstance(value, int) and 0 <= high - low <= 4:
            values = range(int(low), int(high) + 1)
        elif low <= 0 <= high:
            values = (type(value)(0),)
        yield from (base | {key: other} for other in values if other != value)


def identities(specs: Sequence[Spec] | None = None, say: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """Classes of solvers that are one method, a line for each that has several solvers.

    Columns: methods (sentences as `--solver` takes them), where (`everywhere`, or the problems), budgets, grids, by
    (`table` or `result`), difference (the largest from the first of them; see `TOLERANCE`), tolerance. In a class that
    holds on some problems or budgets alone, each class that holds everywhere is named by its first method.

    Args:
        specs: what is compared; by default `named()`.
        say: told what is being done.
    """
    names = sorted(dict.fromkeys(map(str, specs if specs is not None else named())), key=lambda name: ":" in name)
    found: dict[_Scope, _Found] = {}
    for problem, budgets in product(PROBLEMS, BUDGETS):
        say(f"{problem}, NFE {_listed(budgets)}")
        path = PROBLEMS[problem]
        plans = {name: held for name in names if (held := _plans(name, path, budgets))}
        tables = {name: _tables(held, path) for name, held in plans.items()}
        same = _grouped(plans, partial(_difference, tables))
        results = {group[0]: _results(plans[group[0]], path) for group in same}
        alike = _grouped(results, partial(_difference, results))
        found[problem, budgets] = {"table": (tables, same), "result": (results, alike)}

    def everywhere(one: str, other: str) -> float | None:
        held = (scope["table"][0] for scope in found.values())
        far = [_difference(tables, one, other) for tables in held if one in tables and other in tables]
        return max((value for value in far if value is not None), default=None) if None not in far else None

    whole = _grouped(names, everywhere)
    first = {name: group[0] for group in whole for name in group}
    lines: list[tuple[Sequence[str], str, tuple[int, ...], str, float]]
    lines = [(group, "everywhere", sum(BUDGETS, ()), "table", _largest(group, everywhere)) for group in whole]
    where: dict[tuple[str, tuple[str, ...]], list[_Scope]] = {}
    for scope, kinds in found.items():
        for by, (_, groups) in kinds.items():
            for group in groups:
                where.setdefault((by, tuple(dict.fromkeys(first[name] for name in group))), []).append(scope)
    for (by, several), scopes in where.items():
        for budgets, problems in _by_budgets(scopes):
            far = max(_largest(several, partial(_difference, found[scope][by][0])) for scope in scopes)
            place = "everywhere" if len(problems) == len(PROBLEMS) else ", ".join(problems)
            lines.append((several, place, budgets, by, far))
    facts = {"grids": ", ".join(GRIDS), "tolerance": TOLERANCE}
    columns = ("methods", "where", "budgets", "by", "difference", *facts)
    return pd.DataFrame([
        {"methods": tuple(group), "where": place, "budgets": _listed(budgets), "by": by, "difference": far} | facts
        for group, place, budgets, by, far in lines
        if len({name.partition(":")[0] for name in group}) > 1
    ], columns=columns)  # fmt: skip


def _by_budgets(scopes: Iterable[_Scope]) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    """(budgets, problems) of the scopes: one of all budgets where they hold on the same problems."""
    problems: dict[tuple[int, ...], list[str]] = {}
    for problem, budgets in scopes:
        problems.setdefault(budgets, []).append(problem)
    if len(problems) == len(BUDGETS) and len(set(map(tuple, problems.values()))) == 1:
        yield sum(problems, ()), next(iter(problems.values()))
    else:
        yield from problems.items()


def _listed(budgets: Iterable[int]) -> str:
    return ", ".join(map(str, budgets))


def _largest(group: Sequence[str], difference: Callable[[str, str], float | None]) -> float:
    return max((difference(group[0], other) or 0.0 for other in group[1:]), default=0.0)


def _grouped(names: Iterable[str], difference: Callable[[str, str], float | None]) -> list[list[str]]:
    """Classes in which each differs from each by no more than the tolerance, in the order of their first members."""
    groups: list[list[str]] = []
    for name in names:
        for group in groups:
            if all((far := difference(name, other)) is not None and far <= TOLERANCE for other in group):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _difference(numbers: _Numbers, first: str, second: str) -> float | None:
    """The largest difference where both run; None where they make other evaluations, or hardly meet."""
    one, other = numbers[first], numbers[second]
    keys = one.keys() & other.keys()
    if len(keys) < _FEWEST or any(one[key].shape != other[key].shape for key in keys):
        return None
    return max(float(np.abs(one[key] - other[key]).max() / max(1.0, np.abs(one[key]).max())) for key in keys)


def _plans(name: str, path: Path, budgets: Iterable[int]) -> dict[_Key, Plan]:
    found = {}
    for grid, budget in product(GRIDS, budgets):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of grids that are poor for a method
                found[grid, budget] = Spec.parse(f"{name}@{grid}").plan(path, budget)
        except ValueError:  # a budget or grid that it cannot have
            continue
    return found


def _tables(plans: Mapping[_Key, Plan], path: Path) -> dict[_Key, np.ndarray]:
    found = {}
    for key, plan in plans.items():
        if plan.tabled:
            table = trace(plan, coordinate_of(path))
            found[key] = np.concatenate([table.times, table.a, table.b.ravel(), table.w.ravel()])
    return found


@torch.inference_mode()
def _results(plans: Mapping[_Key, Plan], path: Path) -> dict[_Key, np.ndarray]:
    x = path.prior_std * normal(20231, range(_POINTS), (2,)).double()
    return {key: plan(ring_mixture(path), x, _noise).numpy().ravel() for key, plan in plans.items()}


@cache
def _noise(index: int) -> torch.Tensor:
    return normal(20232 + index, range(_POINTS), (2,)).double()
