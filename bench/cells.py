"""Cells: what a sweep is made of. One cell is one row of numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from rich.console import Console

from fastsample.bench.learned import find_table, fits, table_plan, table_solvers
from fastsample.bench.request import Request, RequestError
from fastsample.datasets.home import data_home
from fastsample.datasets.names import nearest
from fastsample.models.catalogue import Model, open_model
from fastsample.solvers.artefact import TableFile
from fastsample.solvers.solver import Plan, Solver, get, solvers
from fastsample.solvers.table import trace

__all__ = ["Cell", "Skipped", "plan_cells"]


@dataclass(frozen=True)
class Skipped:
    """A cell that the method cannot fill, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """(model, solver with options, grid, NFE, guidance, labels, samples, seed, precision) and the metrics asked for.

    `table` is that of a learned or imported solver.
    """

    model: Model
    plan: Plan
    options: dict[str, Any]
    guidance: float
    samples: int
    seed: int
    precision: str
    labels: str
    metrics: tuple[str, ...]
    table: TableFile | None = None

    @cached_property
    def nfe(self) -> int:
        """Evaluations that the plan makes, known before it runs; 0 for adaptive solvers."""
        return 0 if self.plan.solver.adaptive else trace(self.plan, "x0").nfe

    def identity(self, protocol: dict[str, str]) -> str:
        """Hash of all that determines the numbers; equal cells have equal numbers."""
        facts = {
            "version": version("fastsample"), "model": self.model.id, "checkpoint": self.model.sha256,
            "solver": self.plan.solver.name, "options": self.options, "times": list(self.plan.times),
            "nfe": self.plan.nfe, "guidance": self.guidance, "samples": self.samples, "seed": self.seed,
            "precision": self.precision, "metrics": list(self.metrics), "protocol": protocol,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        text = ",".join(f"{key}={value}" for key, value in self.options.items())
        return (
            f"{self.model.id} {self.plan.solver.name}{':' + text if text else ''} {self.plan.grid} NFE {self.plan.nfe}"
        )


def plan_cells(
    request: Request, metrics: tuple[str, ...], console: Console | None = None
) -> tuple[list[Cell], list[Skipped]]:
    """Every cell of a request, and those that their method cannot fill.

    Public models are fetched where they are not here yet, with the progress on the console.

    Raises:
        ValueError: for an unknown model, solver, option or grid.
        RequestError: if no cell is left.
    """
    if request.checkpoint and len(request.model) > 1:
        raise RequestError(f"{request.checkpoint} is the file of one model; give one --model with --checkpoint")
    if request.guidance and request.classifier_scale:
        raise RequestError("classifier-free and classifier guidance exclude each other")
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    parsed = [_parse(text) for text in request.solver]
    for name in request.model:
        model = open_model(
            name, home=data_home(), console=console, checkpoint=request.checkpoint,
            classifier_scale=request.classifier_scale,
        )  # fmt: skip
        for solver, options in parsed:
            grids = request.grid if isinstance(solver, Solver) and request.grid else (None,)
            for grid in grids:
                for nfe in request.nfe:
                    table = None
                    try:
                        if isinstance(solver, Solver):
                            plan = solver.plan(model.path, nfe, grid, **options)
                        else:
                            table = find_table(solver, model, nfe, request.guidance, transfer=request.transfer)
                            plan = table_plan(table)
                    except ValueError as error:
                        if "at NFE" not in str(error):
                            raise
                        what = solver.name if isinstance(solver, Solver) else solver
                        skipped.append(Skipped(f"{model.id} {what} NFE {nfe}", str(error)))
                        continue
                    foreign = table is not None and not fits(table, model, request.guidance)
                    shown = options | ({"transfer": table.model} if table and foreign else {})
                    for seed in range(request.seed, request.seed + request.seeds):
                        asked = request.guidance, request.samples, seed, request.precision, request.labels
                        cells.append(Cell(model, plan, shown, *asked, metrics, table))
    if not cells:
        raise RequestError(skipped[0].reason)
    return cells, skipped


def _parse(text: str) -> tuple[Solver | str, dict[str, Any]]:
    """A registered solver with its options, or the name of one that is known by its tables."""
    name, _, rest = text.partition(":")
    if name in solvers():
        return get(name), get(name).parse(rest)
    if name not in (tables := table_solvers()):
        raise ValueError(nearest(name, [*solvers(), *sorted(tables)], "solver"))
    if rest:
        raise ValueError(f"solver {name} is a table and takes no options, not {rest!r}")
    return name, {}
