"""What the registries know of models and solvers, for published numbers: what is the same, and what can be run."""

from __future__ import annotations

import warnings
from functools import cache

from fastsample.bench.limits import TABLE_NFE
from fastsample.datasets.published_moments import published_references
from fastsample.models.path import Path
from fastsample.models.public.cards import cards
from fastsample.results.papers.stated import Suite
from fastsample.solvers.spec import Spec, complete
from fastsample.solvers.table import trace

__all__ = ["suite"]


@cache
def suite() -> Suite:
    """The public models and the solvers that are here."""
    known = cards()
    paths = {name: card.path.build() for name, card in known.items() if card.path}
    ids = {entry.url: entry.id for entry in published_references()}
    return Suite(
        same=complete,
        t_end=lambda model: paths[model].t_data if model in paths else None,
        reference=lambda model: ids.get(known[model].reference, known[model].reference) if model in known else "",
        labelled=lambda model: model in known and known[model].labels.kind != "none",
        refusal=lambda model, *plan: _refusal(paths[model], *plan) if model in paths else "no model of the suite",
    )


@cache
def _refusal(path: Path, solver: str, grid: str, calls: int) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as a grid with more intervals than it was asked for
            plan = Spec.parse(f"{solver}@{grid}" if grid else solver).plan(path, calls)
        made = calls if plan.solver.adaptive or calls > TABLE_NFE else trace(plan).nfe  # a long table takes minutes
    except (ValueError, UserWarning) as error:
        return str(error)
    return "" if made == calls else f"solver {solver} makes {made} calls of {calls}"
