"""Cells: what a sweep is made of. One cell is one row of numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import product
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.markup import escape

from fastsample.bench.metrics.trajectories import undefined
from fastsample.bench.protocol import asked_of, check_guidance, guide_of, under
from fastsample.bench.request import Request, RequestError
from fastsample.datasets.errors import told
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model, model_names, open_model
from fastsample.models.foreign.diffusers_files import PREFIX
from fastsample.models.noise import label_list
from fastsample.models.public.cards import cards
from fastsample.results.protocol import Protocol
from fastsample.solvers.grids import BudgetError, Grid, SettingError
from fastsample.solvers.learned.shelf import fits
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import Plan
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile

__all__ = ["Cell", "Skipped", "plan_cells"]

_MOST = 100_000  # cells of a sweep
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Skipped:
    """A cell that is not computed, and why: its method cannot fill it, or with `failed` something is wrong with it."""

    what: str
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Cell:
    """(model, solver with options, grid, NFE, protocol, samples, seed) and the metrics asked for.

    `table` is that of a learned or imported solver.
    """

    model: Model
    plan: Plan
    options: dict[str, Any]
    protocol: Protocol
    samples: int
    seed: int
    metrics: tuple[str, ...] = ()
    table: TableFile | None = None

    @cached_property
    def nfe(self) -> int:
        """Evaluations that the plan makes, known before it runs; 0 for adaptive solvers."""
        return 0 if self.plan.solver.adaptive else trace(self.plan, "x0").nfe

    @cached_property
    def unbent(self) -> str:
        """Why there is no curvature of its trajectories; "" if there is, or if the solver fails: its run tells."""
        try:
            return undefined(self.plan)
        except Exception:
            return ""

    @property
    def settings(self) -> dict[str, Any]:
        """Its options with defaults filled in: `scire` and `scire:order=2` are one."""
        return self.options if self.table else self.plan.solver.settings(self.options)

    def identity(self, protocol: dict[str, str]) -> str:
        """Hash of all that determines the numbers, with the facts of `Runner.facts`; equal cells have equal numbers."""
        asked = self.protocol
        facts = {
            "version": version("fastsample"), "numerics": NUMERICS,
            "model": self.model.id, "checkpoint": self.model.sha256,
            "solver": self.plan.solver.name, "options": self.settings, "times": list(self.plan.times),
            "nfe": self.plan.nfe, "guidance": asked.guidance, "samples": self.samples, "seed": self.seed,
            "precision": asked.precision, "metrics": sorted(self.metrics), "protocol": protocol, **asked.altered,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.model.id} {Spec(self.plan.solver.name, self.options)} {self.plan.grid} NFE {self.plan.nfe}"


def plan_cells(
    request: Request, metrics: tuple[str, ...], console: Console | None = None
) -> tuple[list[Cell], list[Skipped]]:
    """Every cell of a request, and those that are not computed.

    Public models are fetched where they are not here yet, with the progress on the console. What is unknown ends the
    request; what is known and cannot be (a model that cannot be had, an option that the model has no use for, a value
    out of range) leaves out its own cells.

    Raises:
        ValueError: for an unknown model, solver, option or grid; or the first reason, if no cell is left.
    """
    if request.checkpoint and len(request.model) > 1:
        raise RequestError(f"{request.checkpoint} is the file of one model; give one --model with --checkpoint")
    if request.guidance and request.classifier_scale:
        raise RequestError("classifier-free and classifier guidance exclude each other")
    count = len(request.model) * len(request.solver) * max(1, len(request.grid)) * len(request.nfe) * request.seeds
    if count > _MOST:
        raise RequestError(f"a sweep has at most {_MOST} cells, not {count}")
    cells: dict[str, Cell] = {}
    skipped: list[Skipped] = []
    specs, first = _possible(Spec.parse, request.solver, skipped)
    grids, no_grid = _possible(Grid.parse, request.grid, skipped)
    first = first or no_grid
    if first and not specs:
        raise first
    own = [spec.name for spec in specs if not spec.gridded]
    if request.grid and len(own) == len(specs):
        raise RequestError(f"the times of {' and '.join(own)} are their own: leave --grid out")
    if request.transfer and all(spec.solver for spec in specs):
        raise RequestError("--transfer lets learned solvers take another model's table, and none is asked for")
    for name in request.model:
        base = re.sub(r"@[0-9a-f]{8}$", "", name)  # of weights that are not the published ones
        elsewhere = base.startswith(PREFIX) or base.partition("#")[0].endswith((".toml", ".safetensors"))
        if not elsewhere and base not in {**model_names(), **cards()}:
            open_model(name)  # says what there is
    guide, notes = guide_of(request, console), list[str]()
    for name in request.model:
        try:
            model = open_model(
                name, home=data_home(), console=console, checkpoint=request.checkpoint,
                classifier_scale=request.classifier_scale,
            )  # fmt: skip
            asked: dict[tuple[str, int], Request] = {}
            opened: dict[Protocol, Model] = {}
            for key in product([spec.name for spec in specs], request.nfe):
                asked[key], said = asked_of(request, model, *key)
                notes += said
                if (protocol := asked[key].asked) not in opened:
                    opened[protocol] = _ready(model, asked[key], guide)
        except Exception as error:
            first = first or error
            skipped.append(Skipped(name, told(error), failed=True))
            continue
        for spec in specs:
            takes = spec.gridded and not spec.grid and request.grid
            for one, nfe in product([spec.on(grid) for grid in grids] if takes else [spec], request.nfe):
                wanted = asked[spec.name, nfe]
                model = opened[wanted.asked]
                protocol = wanted.asked.model_copy(update={"guide": guide.id if guide else ""})
                if model.prompts and protocol.labels == "random":
                    protocol = protocol.model_copy(update={"labels": "balanced"})  # prompt i belongs to sample i
                try:
                    plan, table = one.plan_for(model, nfe, request.guidance, transfer=request.transfer)
                except Exception as error:
                    first = first or error
                    what = f"{model.id} {replace(one, grid=None)}{f' {one.grid}' if one.grid else ''} NFE {nfe}"
                    skipped.append(Skipped(what, told(error), failed=not isinstance(error, BudgetError)))
                    continue
                foreign = table is not None and not fits(table, model, request.guidance)
                options = {"transfer": table.model} if table and foreign else dict(one.options)
                for seed in range(wanted.seed, wanted.seed + wanted.seeds):
                    cell = Cell(model, plan, options, protocol, wanted.samples, seed, metrics, table)
                    cells.setdefault(cell.identity({}), cell)  # what is asked for twice is one cell
    for note in dict.fromkeys(notes):
        (console or Console(quiet=True)).print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    if not cells:
        assert first is not None
        raise RequestError(str(first)) if isinstance(first, BudgetError) else first
    return list(cells.values()), skipped


def _ready(model: Model, request: Request, guide: Model | None) -> Model:
    """The model under a request; raises where it has an option that is none for the model."""
    model = under(model, request, guide)
    _check_options(model, request)
    label = torch.zeros(1, dtype=torch.int64) if model.num_classes else None
    model.make(model.network, label, request.guidance, None)  # raises for guidance that it was not trained for
    return model


def _possible(
    read: Callable[[str], _Read], texts: Iterable[str], skipped: list[Skipped]
) -> tuple[list[_Read], Exception | None]:
    """What can be read of the texts, and the first reason why one cannot be; such a one leaves out its own cells."""
    found: list[_Read] = []
    first: Exception | None = None
    for text in texts:
        try:
            found.append(read(text))
        except SettingError as error:
            first = first or error
            skipped.append(Skipped(text, told(error), failed=True))
    return found, first


def _check_options(model: Model, request: Request) -> None:
    """Raise RequestError for an option that the model has no use for."""
    check_guidance(model, request)
    if request.labels != "random" and not model.num_classes:
        raise RequestError(f"{model.id} has no classes, and so no {request.labels} labels")
    try:
        label_list(request.labels, model.num_classes)
    except ValueError as error:
        raise RequestError(f"--labels {request.labels} is not for {model.id}: {error}") from None
    if request.precision in ("bf16", "fp16") and model.network is None:
        raise RequestError(f"{model.id} is exact and has no network to run in {request.precision}")
