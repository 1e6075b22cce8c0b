"""Cells: what a sweep is made of. One cell is one row of numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from rich.console import Console

from fastsample.bench.request import Request, RequestError
from fastsample.datasets.dataset import data_home
from fastsample.models.catalogue import Model, open_model
from fastsample.solvers.solver import Plan, get
from fastsample.solvers.table import trace

__all__ = ["Cell", "Skipped", "plan_cells"]


@dataclass(frozen=True)
class Skipped:
    """A cell that the method cannot fill, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """(model, solver with options, grid, NFE, guidance, labels, samples, seed, precision) and the metrics asked for."""

    model: Model
    plan: Plan
    options: dict[str, Any]
    guidance: float
    samples: int
    seed: int
    precision: str
    labels: str
    metrics: tuple[str, ...]

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
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    parsed = [(get(name), get(name).parse(rest)) for name, _, rest in (text.partition(":") for text in request.solver)]
    for name in request.model:
        model = open_model(name, home=data_home(), console=console, checkpoint=request.checkpoint)
        for solver, options in parsed:
            for grid in request.grid or (None,):
                for nfe in request.nfe:
                    try:
                        plan = solver.plan(model.path, nfe, grid, **options)
                    except ValueError as error:
                        if "at NFE" not in str(error):
                            raise
                        skipped.append(Skipped(f"{model.id} {solver.name} NFE {nfe}", str(error)))
                        continue
                    asked = request.guidance, request.samples, request.seed, request.precision, request.labels
                    cells.append(Cell(model, plan, options, *asked, metrics))
    if not cells:
        raise RequestError(skipped[0].reason)
    return cells, skipped
