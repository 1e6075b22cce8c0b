"""The solver contract: plain functions, registered once, planned on a path, run on any vector.

A solver is `solve(denoiser, x, times, **options) -> x`. It uses only additions of vectors and their
products with Python floats, computes its coefficients in float64 on the host, and asks
`denoiser.path` for alpha, sigma and lambda. `times` runs from noise to data.

`register` gives it a name and its `Facts`. A `Plan` (see `solvers.plan`) binds a
solver to a path, a budget and a grid; calling it samples:

    plan = get("scire").plan(denoiser.path, nfe=10, order=3)
    samples = plan(denoiser, noise)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastsample.datasets.names import nearest
from fastsample.models.denoiser import Prediction
from fastsample.models.path import Path, path_named
from fastsample.results.training import TrainedOn
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.grids import BudgetError, Grid, SettingError
from fastsample.solvers.plan import Plan

__all__ = ["Facts", "Plan", "Schedule", "Solver", "get", "register", "registered_apart", "solvers", "steps",
           "whole_interval"]  # fmt: skip

Solve = Callable[..., Any]


@dataclass(frozen=True)
class Schedule:
    """The outer times of a run and what else the solve function must be told (orders, ratios).

    `end` is the time of the result where it is not the last of them; `remark` is what is to be told to who samples.
    """

    times: tuple[float, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    end: float | None = None
    remark: str = ""


# scheduler(path, t_start, grid, nfe, **options) -> Schedule that makes at most nfe evaluations
Scheduler = Callable[..., Schedule]

# Options that every solver takes: they wrap the solver instead of entering it.
COMMON: dict[str, Any] = {"denoise": False, "afs": False}


def steps(evaluations: int = 1, extra: int = 0) -> Scheduler:
    """A scheduler of equal steps: floor((nfe - extra) / evaluations) intervals of the grid."""

    def schedule(path: Path, t_start: float, grid: Grid, nfe: int) -> Schedule:
        intervals = (nfe - extra) // evaluations
        if intervals < 1:
            raise BudgetError(f"needs at least {evaluations + extra} evaluations, not {nfe}")
        return Schedule(grid(path, intervals, t_start, path.t_data))

    return schedule


def whole_interval(path: Path, t_start: float, grid: Grid, nfe: int) -> Schedule:
    """The scheduler of adaptive solvers: both ends, whatever the grid and the budget."""
    return Schedule((t_start, path.t_data))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a reader of a results table needs to know of a solver, and what a plan does with it.

    Attributes:
        title: what a table calls it; paper: arXiv id.
        coordinate: the prediction that the method asks the denoiser for.
        order: claimed order of convergence, or a function of the options.
        grids: recommended grids, best first.
        flow_grid: the recommended grid on flow models (whose time runs from noise to data) and others of a terminal
            SNR of zero, if another.
        path: name of the path it integrates on, or None for the model's own (methods in lambda or NSR do not care).
        singular_start: it can start where lambda = -inf (velocity and data-prediction multistep methods).
        scheduler: chooses steps and orders that spend the budget.
        defaults: option values of this member that differ from the function's.
        variants: option sets, beside others, that tests and `verify` prove.
        note: one sentence on how official code differs.
        stochastic: it takes `noise`; adaptive: its steps depend on x, so it has no table and no budget; nonlinear: its
            coefficients depend on x, so it has no table, but takes a budget and a grid, and needs a batch of vectors.
        ranges: of options that are numbers, ends included.
        trained_on: what decides its coefficients beside the path; "statistics" are of the model, found beforehand, and
            its scheduler is told them as `found`.
    """

    title: str
    paper: str
    coordinate: Prediction
    order: int | Callable[..., int]
    grids: Sequence[str] = ("logsnr",)
    flow_grid: str | None = None
    path: str | None = None
    singular_start: bool = False
    scheduler: Scheduler = field(default_factory=steps)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    variants: Sequence[Mapping[str, Any]] = ({},)
    note: str = ""
    stochastic: bool = False
    adaptive: bool = False
    nonlinear: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    trained_on: TrainedOn = "nothing"


@dataclass(frozen=True, kw_only=True)
class Solver(Facts):
    """A solver: a name, a solve function, and their facts; `code` is the file of one of a user's own, with its hash."""

    name: str
    solve: Solve
    code: str = ""

    @property
    def known_options(self) -> dict[str, Any]:
        """Every option with its default, the common ones last."""
        scheduled = _keyword_only(self.scheduler)
        return {**scheduled, **_keyword_only(self.solve), **self.defaults, **COMMON}

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values of the options that are closed choices (`Literal`)."""
        return {key: known for key, known in _literals(self.scheduler, self.solve).items() if key in self.known_options}

    def claimed_order(self, **options: Any) -> int:
        """Order of convergence that `verify` holds the solver to, with these options."""
        complete = self.settings(options)
        return self.order if isinstance(self.order, int) else self.order(**complete)

    def integration_path(self, path: Path) -> Path:
        """The path on which the solver integrates a model that lives on `path`."""
        target = path if self.path is None else path_named(self.path)
        if target.name == path.name:
            return path
        if path.is_singular(path.t_noise) and target.alpha(target.t_noise) > 0:  # the target has no such time
            start = target.t_of_lam(path.lam(path.t_finite))
        elif path.alpha(path.t_noise) <= 0:  # both begin with noise alone
            start = target.t_noise
        else:  # the noise end has a lambda
            start = target.t_of_lam(path.lam(path.t_noise))
        return target.between(start, target.t_of_lam(path.lam(path.t_data)))

    def default_grid(self, path: Path) -> Grid:
        """The recommended grid on a model's path."""
        like_flow = path.t_data > path.t_noise or path.is_singular(path.t_noise)
        return Grid.parse(self.flow_grid if like_flow and self.flow_grid else self.grids[0])

    def plan(
        self, path: Path, nfe: int, grid: Grid | str | None = None, *, found: Statistics | None = None, **options: Any
    ) -> Plan:
        """Bind the solver to a model's path and a budget of evaluations.

        Args:
            path: the model's path with its interval.
            nfe: evaluations to spend; never exceeded, and spent exactly where the method can.
            grid: a Grid, its name, or None for the recommended one.
            found: statistics of the model, for a solver that takes some; without them it runs on trivial ones.
            options: the solver's options, `denoise` (end with one data prediction, an evaluation more)
                and `afs` (analytic first step, an evaluation less).

        Raises:
            BudgetError: for a budget that the method or the grid cannot spend.
            SettingError: for an option's value that it cannot have.
            ValueError: for an unknown option or grid, or a grid on which the method has no finite coefficients.
        """
        complete = self.settings(options)
        denoise, afs = complete.pop("denoise"), complete.pop("afs")
        grid = self.default_grid(path) if grid is None else Grid.parse(grid) if isinstance(grid, str) else grid
        own = self.integration_path(path)
        start = own.t_noise if self.singular_start else own.t_finite
        chosen = {key: complete[key] for key in _keyword_only(self.scheduler)}
        chosen |= {"found": found} if self.trained_on == "statistics" else {}
        try:
            if nfe < 1:
                raise BudgetError(f"NFE must be at least 1, not {nfe}")
            schedule = self.scheduler(own, start, grid, nfe - denoise + afs, **chosen)
        except ValueError as error:
            kind = BudgetError if isinstance(error, BudgetError) else ValueError
            raise kind(f"solver {self.name} at NFE {nfe}: {error}") from None
        accepted = _keyword_only(self.solve)
        arguments = {key: value for key, value in complete.items() if key in accepted} | dict(schedule.arguments)
        arguments |= {"denoise": denoise} if "denoise" in accepted else {}
        plan = Plan(
            self, path, own, grid, nfe, schedule.times, arguments, denoise, afs, schedule.end, remark=schedule.remark
        )
        if not self.adaptive and (fault := plan.fault()):
            raise ValueError(f"solver {self.name} at NFE {nfe}: {fault}")
        return plan

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with the defaults of the others.

        Raises:
            SettingError: for a value that an option cannot have; ValueError for an unknown option.
        """
        known = self.known_options
        for key in options:
            if key not in known:
                raise ValueError(nearest(key, list(known), f"option of solver {self.name}"))
        complete = known | dict(options)
        for key, allowed in self.choices.items():
            if complete[key] not in allowed:
                told = nearest(str(complete[key]), [*map(str, allowed)], key)
                if isinstance(allowed[0], int):
                    told = f"{key} runs from {allowed[0]} to {allowed[-1]}, not {complete[key]}"
                raise SettingError(f"solver {self.name}: {told}")
        for key, (low, high) in self.ranges.items():
            if not low <= complete[key] <= high:
                raise SettingError(f"solver {self.name}: {key} runs from {low:g} to {high:g}, not {complete[key]}")
        for key, value in complete.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"solver {self.name}: {key} is a number, not {value}")
        return complete


_SOLVERS: dict[str, Solver] = {}
_apart: list[list[Solver]] = []  # that what is registered goes into, the last of them


def register(name: str, facts: Facts) -> Callable[[Solve], Solve]:
    """Register a solve function under the name that the command line calls it; one may be registered several times."""

    def decorate(solve: Solve) -> Solve:
        solver = Solver(name=name, solve=solve, **vars(facts))
        if _apart:
            _apart[-1].append(solver)
        elif name in _SOLVERS:
            raise ValueError(f"solver {name} is registered twice")
        else:
            _SOLVERS[name] = solver
        return solve

    return decorate


@contextmanager
def registered_apart() -> Iterator[list[Solver]]:
    """What is registered inside goes into the list alone, under names that may be taken."""
    _apart.append([])
    try:
        yield _apart[-1]
    finally:
        _apart.pop()


def solvers() -> dict[str, Solver]:
    """Every registered solver by name."""
    return dict(_SOLVERS)


def get(name: str) -> Solver:
    """The solver of that name.

    Raises:
        ValueError: for an unknown name; the message offers the nearest ones.
    """
    if name not in _SOLVERS:
        raise ValueError(nearest(name, list(_SOLVERS), "solver"))
    return _SOLVERS[name]


def _keyword_only(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only parameters that have a default: the options of a solve function or scheduler."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


@cache
def _literals(*functions: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    hints = {key: get_type_hints(function)[key] for function in functions for key in _keyword_only(function)
             if key in function.__annotations__}  # fmt: skip
    return {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}
