"""Cells: what a sweep is made of. One cell is one row of numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import product
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.markup import escape

from fastsample.bench.limits import TABLE_NFE
from fastsample.bench.metrics.trajectories import undefined
from fastsample.bench.protocol import asked_of, check_guidance, guide_of, under
from fastsample.bench.request import Request, RequestError
from fastsample.datasets.errors import told
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model, check_name, open_model
from fastsample.models.noise import label_list
from fastsample.models.precision import whole_dtype
from fastsample.results.commands import GIVEN, SHAPE
from fastsample.results.protocol import Protocol
from fastsample.results.training import TrainedOn
from fastsample.solvers.grids import BudgetError, Grid, SettingError
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import Plan
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import Table, trace
from fastsample.solvers.table_file import TableFile

__all__ = ["Cell", "Skipped", "cell_of", "plan_cells"]

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
    compared: int = 0  # samples that are compared with reference solutions, the first so many; 0 for all

    @cached_property
    def rows(self) -> Table | None:
        """Its coefficients in x0; None where it has none or is too long, or asks where x says x0 already."""
        if not self.plan.tabled or self.plan.nfe > TABLE_NFE:
            return None
        try:
            return trace(self.plan, "x0")
        except ZeroDivisionError:
            return None

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

    @property
    def trained_on(self) -> TrainedOn:
        """What decided its table, grid or statistics."""
        return self.table.trained_on if self.table else self.plan.trained_on

    @property
    def found_with(self) -> str:
        """The noises and the cost of that, in words."""
        return self.table.trained_with if self.table else self.plan.found_with

    @cached_property
    def group(self) -> str:
        """Hash of what answers and of the noise that it starts from: cells of one group share evaluations."""
        model, asked = self.model, self.protocol
        facts = {
            "version": version("fastsample"), "model": model.id, "checkpoint": model.sha256, "card": model.conditions,
            "classifier": model.classifier, "guide": model.guide, "guidance": asked.guidance, "labels": asked.labels,
            "precision": asked.precision, "seed": self.seed, **asked.altered,
        }  # fmt: skip
        return _hash(facts)

    @cached_property
    def sampling(self) -> str:
        """Hash of all that determines sample i, whatever is measured and however many there are."""
        facts = {
            "group": self.group, "numerics": NUMERICS, "solver": self.plan.solver.name, "options": self.settings,
            "times": list(self.plan.times), "nfe": self.plan.nfe, "table": self.table and self.table.sha256,
        }  # fmt: skip
        return _hash(facts | ({"statistics": found} if (found := self.plan.statistics) else {}))

    @property
    def spelled(self) -> dict[str, str]:
        """What commands have to know of its model: its name where the id is not enough; it decides no number."""
        shape = self.model.image_shape
        given = {GIVEN: self.model.given} if self.model.given else {}
        return given | ({} if len(shape) == 3 else {SHAPE: "x".join(map(str, shape))})

    def identity(self, protocol: dict[str, str]) -> str:
        """Hash of all that determines the numbers, with the facts of `Runner.facts`; equal cells have equal numbers."""
        facts = {"sampling": self.sampling, "samples": self.samples, "metrics": sorted(self.metrics)}
        facts |= {"compared": self.compared} if 0 < self.compared < self.samples else {}
        return _hash(facts | {"protocol": protocol})

    @property
    def dtype(self) -> torch.dtype:
        """Of its state."""
        return whole_dtype(self.protocol.precision)

    @property
    def sampler(self) -> str:
        """The sentence of solver and options."""
        return str(Spec(self.plan.solver.name, self.options))

    def __str__(self) -> str:
        return f"{self.model.id} {self.sampler} {self.plan.grid} NFE {self.plan.nfe}"


def _hash(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


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
        check_name(name)
    guide, notes = guide_of(request, console), list[str]()
    for name in request.model:
        try:
            asked, opened = _opened(name, request, specs, guide, console)
        except Exception as error:
            first = first or error
            skipped.append(Skipped(name, told(error), failed=True))
            continue
        notes += [note for _, said in asked.values() for note in said]
        for spec in specs:
            takes = spec.gridded and not spec.grid and request.grid
            for one, nfe in product([spec.on(grid) for grid in grids] if takes else [spec], request.nfe):
                wanted, _ = asked[spec.name, nfe]
                model = opened[wanted.asked]
                protocol = wanted.asked.model_copy(update={"guide": guide.id if guide else ""})
                if model.prompts and protocol.labels == "random":
                    protocol = protocol.model_copy(update={"labels": "balanced"})  # prompt i belongs to sample i
                try:
                    one = one.decided(model, nfe, request.guidance)
                    plan, table = one.plan_for(model, nfe, request.guidance, transfer=request.transfer)
                except Exception as error:
                    first = first or error
                    what = f"{model.id} {replace(one, grid=None)}{f' {one.grid}' if one.grid else ''} NFE {nfe}"
                    skipped.append(Skipped(what, told(error), failed=not isinstance(error, BudgetError)))
                    continue
                options = one.options_on(model, nfe, request.guidance, table)
                notes += [plan.remark] if plan.remark else []
                for seed in range(wanted.seed, wanted.seed + wanted.seeds):
                    compared = min(wanted.psnr_samples, wanted.samples)
                    cell = Cell(model, plan, options, protocol, wanted.samples, seed, metrics, table, compared)
                    cells.setdefault(cell.identity({}), cell)  # what is asked for twice is one cell
    for note in dict.fromkeys(notes):
        (console or Console(quiet=True)).print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    if not cells:
        assert first is not None
        raise RequestError(str(first)) if isinstance(first, BudgetError) else first
    return list(cells.values()), skipped


def cell_of(model: Model, request: Request) -> Cell:
    """The one cell of a request on a model that is open, with no metrics.

    Raises:
        ValueError: for a request of several samplers, or one that cannot be carried out.
    """
    if len(request.solver) != 1 or len(request.nfe) != 1 or len(request.grid) > 1:
        raise RequestError("give one solver, one NFE and at most one grid")
    spec = Spec.parse(request.solver[0]).on(Grid.parse(request.grid[0]) if request.grid else None)
    model = _ready(model, request, None)
    spec = spec.decided(model, request.nfe[0], request.guidance)
    plan, table = spec.plan_for(model, request.nfe[0], request.guidance, transfer=request.transfer)
    options = spec.options_on(model, request.nfe[0], request.guidance, table)
    return Cell(model, plan, options, request.asked, request.samples, request.seed, (), table)


def _opened(
    name: str, request: Request, specs: list[Spec], guide: Model | None, console: Console | None
) -> tuple[dict[tuple[str, int], tuple[Request, list[str]]], dict[Protocol, Model]]:
    """What `asked_of` says of a model for each solver and NFE, and the model under each protocol of these.

    Of several models none stays open: each is opened again at its first cell.
    """
    asked: dict[tuple[str, int], tuple[Request, list[str]]] = {}
    opened: dict[Protocol, Model] = {}
    model = open_model(
        name, home=data_home(), console=console, checkpoint=request.checkpoint,
        classifier_scale=request.classifier_scale,
    )  # fmt: skip
    try:
        for key in product([spec.name for spec in specs], request.nfe):
            asked[key] = asked_of(request, model, *key)
            if (protocol := asked[key][0].asked) not in opened:
                opened[protocol] = _ready(model, asked[key][0], guide)
    finally:
        if len(request.model) > 1:
            for one in (model, *opened.values()):
                one.release()
    return asked, opened


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
    if model.exact and request.precision not in ("float32", "float64"):
        raise RequestError(f"{model.id} is exact and has no network to run in {request.precision}")
