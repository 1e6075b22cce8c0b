"""What `fastsample list` prints, read off the registries."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastsample.datasets.names import nearest
from fastsample.models.path import VPLinear
from fastsample.solvers.grids import FOUND, GRIDS
from fastsample.solvers.learned.kinds import LEARNED
from fastsample.solvers.own import all_solvers
from fastsample.solvers.solver import Solver, solvers

if TYPE_CHECKING:
    from fastsample.datasets.published_moments import PublishedReference
    from fastsample.models.training.recipe import Recipe

__all__ = ["listing", "solver_page"]

Lines = list[tuple[str, ...]]


def listing(what: str, long: bool = False) -> tuple[tuple[str, ...], Lines]:
    """(columns, lines) of a list.

    Raises:
        ValueError: for something that there is no list of.
    """
    kinds: dict[str, Callable[[], tuple[tuple[str, ...], Lines]]] = {
        "solvers": lambda: (
            _SOLVER_LONG if long else _SOLVER,
            [_solver(s, long) for s in all_solvers().values()] + [_learned(name, long) for name in LEARNED],
        ),
        "tables": _tables,
        "models": _models,
        "recipes": _recipes,
        "datasets": _datasets,
        "grids": lambda: (
            ("grid", "times"),
            [*((name, _first(function)) for name, function in GRIDS.items()), *FOUND.items()],
        ),
        "metrics": _metrics,
        "protocols": _protocols,
        "references": _references,
    }
    if what not in kinds:
        raise ValueError(nearest(what, list(kinds), "list"))
    return kinds[what]()


# What only one list needs, and torch with it, is imported for that list.
def _models() -> tuple[tuple[str, ...], Lines]:
    from fastsample.models.catalogue import model_names

    return ("model", "what it is"), list(model_names().items())


def _tables() -> tuple[tuple[str, ...], Lines]:
    from fastsample.solvers.found.shelf import found_grids, statistics_told
    from fastsample.solvers.learned.shelf import learned_tables

    lines: Lines = [
        (one.solver, one.model or f"any on {one.path['name']}", one.guidance_words, str(one.nfe), one.trained_on,
         one.trained_with)
        for one in learned_tables()
    ]  # fmt: skip
    lines += [
        (f"{one.solver}@{one.name}", one.model["model"], one.model["guidance"], str(one.nfe), one.trained_on, one.told)
        for one in found_grids()
    ]
    lines += [("dpm-solver-v3", model, weight, "any", "statistics", told) for model, weight, told in statistics_told()]
    return ("solver", "made for", "guidance", "NFE", "trained on", "with"), lines


def _recipes() -> tuple[tuple[str, ...], Lines]:
    from fastsample.models.training.recipe import recipes

    return ("recipe", "what it is", "train with", "images", "source"), list(map(_recipe, recipes().values()))


def _datasets() -> tuple[tuple[str, ...], Lines]:
    from fastsample.datasets.images import dataset_names
    from fastsample.datasets.points import POINTS

    points = {name: f"{title}; for training" for name, (title, _, _) in POINTS.items()}
    return ("dataset", "what it is"), list((dataset_names() | points).items())


def _metrics() -> tuple[tuple[str, ...], Lines]:
    import fastsample.bench.metrics.measures  # noqa: F401 - registers the metrics
    from fastsample.results.metrics import METRICS

    return ("metric", "what it measures"), [(kind, metric.about) for kind, metric in METRICS.items()]


def _protocols() -> tuple[tuple[str, ...], Lines]:
    from fastsample.results.papers.presets import protocol_lines

    return protocol_lines()


def _references() -> tuple[tuple[str, ...], Lines]:
    from fastsample.datasets.published_moments import published_references

    return _REFERENCE, list(map(_reference, published_references()))


_REFERENCE = ("reference", "data", "preprocessing", "images", "extractor", "format", "file", "note")


def _reference(entry: PublishedReference) -> tuple[str, ...]:
    count = f"{entry.count:,}" if entry.count else "?"
    return entry.id, entry.data, entry.preprocessing, count, entry.extractor, entry.format, entry.place, entry.note


_SOLVER = ("solver", "title", "order", "paper", "grid")
_SOLVER_LONG = (*_SOLVER, "options", "note")


def _solver(solver: Solver, long: bool) -> tuple[str, ...]:
    orders = sorted({solver.claimed_order(**options) for options in solver.variants})
    order = "adaptive" if solver.adaptive else "-".join(str(order) for order in dict.fromkeys((orders[0], orders[-1])))
    grid = solver.grids[0] if not solver.flow_grid else f"{solver.grids[0]} (flow: {solver.flow_grid})"
    line = (solver.name, solver.title, order, solver.paper, grid)
    if not long:
        return line
    options = ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        + (f" ({'/'.join(map(str, solver.choices[key]))})" if key in solver.choices else "")
        for key, value in solver.known_options.items()
    )
    return (*line, options, solver.note)


def _learned(name: str, long: bool) -> tuple[str, ...]:
    kind = LEARNED[name]
    line = (name, kind.title, "learned", kind.paper, "learned")
    return (*line, "", f"Learned for a model by `fastsample distill {name}`: {kind.learned}.") if long else line


def solver_page() -> str:
    """The page docs/solvers.md: every registered solver with its options, and the budgets that it cannot spend."""
    columns, lines = listing("solvers", long=True)
    rows = [columns, tuple("---" for _ in columns), *lines]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    budgets = range(3, 31)
    spent = {str(solver.name): _spent(solver, budgets) for solver in solvers().values() if not solver.adaptive}
    exact = [name for name, made in spent.items() if all(m == n for m, n in zip(made, budgets, strict=True))]
    head = "| solver | " + " | ".join(str(n) for n in budgets) + " |\n|---|" + "---|" * len(budgets)
    others = "\n".join(
        f"| {name} | " + " | ".join("-" if m is None else str(m) for m in made) + " |"
        for name, made in spent.items() if name not in exact
    )  # fmt: skip
    return f"""# Solvers

Written by `make docs` from the registry. `order` is the claimed order of convergence (lowest and highest over
the proven option sets), which `fastsample verify` measures.

{table}

## Evaluations made for a budget of 3 to 30

No solver exceeds its budget. With default options these spend it exactly: {", ".join(exact)}.
The others make (`-`: the budget is too small; adaptive solvers choose for themselves):

{head}
{others}
"""


def _spent(solver: Solver, budgets: range) -> list[int | None]:
    made: list[int | None] = []
    for budget in budgets:
        try:
            made.append(len(solver.plan(VPLinear(), budget).asked()))
        except ValueError:
            made.append(None)
    return made


def _recipe(recipe: Recipe) -> tuple[str, ...]:
    from fastsample.models.training.recipe import command_of

    return recipe.id, recipe.title, f"train {command_of(recipe)}", f"{recipe.images:,}", recipe.source


def _first(function: object) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
