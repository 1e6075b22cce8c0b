"""A sampler as one sentence, `NAME:OPTION=VALUE,...@GRID`: here it is read and written, and nowhere else.

Spec.parse("scire:order=3,mode=multistep@karras:rho=5").plan(path, nfe=10)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastsample.datasets.names import nearest, number
from fastsample.datasets.own.code import is_code, offered
from fastsample.models.catalogue import Model
from fastsample.models.path import Path
from fastsample.solvers.found.shelf import found_grid, found_statistics
from fastsample.solvers.grids import FOUND, BudgetError, Grid, SettingError
from fastsample.solvers.learned.carried import at_budget
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.learned.shelf import find_table, fits, table_plan, table_solvers
from fastsample.solvers.own import find, solver_named
from fastsample.solvers.solver import Plan, Solver, solvers
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile

__all__ = ["Spec", "complete", "table_of"]


@dataclass(frozen=True)
class Spec:
    """A sampler: a registered solver with options and a grid, or one that is known by its tables and has neither.

    Attributes:
        options: those that are given, in the solver's order.
        grid: None for the recommended one.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: Grid | None = None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read a sentence; each value takes the type of the option's default.

        Raises:
            SettingError: for a value that an option or a parameter of the grid cannot have.
            ValueError: for an unknown solver, option or grid, or what is given to a solver that takes none.
        """
        name, rest, at, grid = _parts(text)
        solver = find(name)
        if solver is None and name not in (tables := table_solvers()):
            raise ValueError(nearest(name, [*solvers(), *offered("solvers"), *sorted(tables)], "solver"))
        if at and (solver is None or solver.adaptive):
            raise ValueError(f"the times of {name} are its own: leave @{grid} out")
        options = _options(solver, rest) if solver else _of_a_table(name, rest)
        return cls(name, options, Grid.parse(grid.strip()) if at else None)

    def __str__(self) -> str:
        options = ",".join(f"{key}={_text(value)}" for key, value in self.options.items())
        return self.name + (f":{options}" if options else "") + (f"@{self.grid}" if self.grid else "")

    @property
    def solver(self) -> Solver | None:
        """The registered solver; None where it is one by its tables."""
        return find(self.name)

    @property
    def gridded(self) -> bool:
        """Whether it takes a grid: learned and adaptive solvers have times of their own."""
        return self.solver is not None and not self.solver.adaptive

    @property
    def settings(self) -> dict[str, Any]:
        """Its options with defaults filled in."""
        return self.solver.settings(self.options) if self.solver else {}

    def on(self, grid: Grid | None) -> Spec:
        """The same on a grid, unless it has one or takes none."""
        return self if self.grid or not self.gridded else replace(self, grid=grid)

    def plan(self, path: Path, nfe: int) -> Plan:
        """The plan of a registered solver; see `Solver.plan`."""
        return solver_named(self.name).plan(path, nfe, self.grid, **self.options)

    def plan_for(
        self, model: Model, nfe: int, guidance: float = 0.0, *, transfer: bool = False
    ) -> tuple[Plan, TableFile | None]:
        """The plan for a model, and the table that it plays if it is a learned or imported one; see `find_table`."""
        if self.solver:
            return self._found(self.solver, model, nfe, guidance), None
        at, of = self.options.get("trained_nfe", nfe), self.options.get("transfer", "")
        table = find_table(self.name, model, at, guidance, transfer=transfer, of=of)
        if at != nfe:
            table = _at_budget(table, nfe)
        return table_plan(table), table

    def options_on(self, model: Model, nfe: int, guidance: float, table: TableFile | None) -> dict[str, Any]:
        """Its options in a row: of a table whose it is and at which NFE it was trained, where that is another."""
        if table is None:
            return dict(self.options)
        found: dict[str, Any] = {} if fits(table, model, guidance) else {"transfer": table.model}
        return found | ({"trained_nfe": at} if (at := self.options.get("trained_nfe", nfe)) != nfe else {})

    def _found(self, solver: Solver, model: Model, nfe: int, guidance: float) -> Plan:
        """The plan of a registered solver with what was found for the model: its grid, its statistics."""
        settings, grid, plan_facts = self.settings, self.grid, dict[str, Any]()
        takes = solver.trained_on == "statistics" and settings["statistics"] not in ("data", "noise")
        statistics = found_statistics(model, guidance) if takes else None
        if grid and grid.name in FOUND and not grid.times:
            found = found_grid(grid.name, model, str(replace(self, grid=None, options=settings)), nfe, guidance)
            grid = Grid(found.name, times=found.times)
            plan_facts = {"trained_on": found.trained_on, "found_with": found.told}
        plan = solver.plan(model.path, nfe, grid, found=statistics, **self.options)
        if statistics and statistics.facts:
            told = f"statistics of {statistics.facts['told']}"
            both = "; ".join(filter(None, (told, plan_facts.get("found_with"))))
            plan_facts = {"trained_on": plan_facts.get("trained_on", "statistics"), "found_with": both}
        return replace(plan, **plan_facts)


def complete(text: str) -> str:
    """A sentence with every option and its default, by which two samplers are the same or not; else as it is."""
    try:
        spec = Spec.parse(text)
    except ValueError:  # of a solver that is not registered here
        return text
    return str(replace(spec, options=spec.settings))


def table_of(
    text: str, model: Model, nfe: int, *, grid: str | None = None, guidance: float = 0.0, transfer: bool = False
) -> TableFile:
    """The table file of any fixed-grid sampler for a model, traced or learned; a grid in the sentence wins over `grid`.

    Raises:
        ValueError: for an unknown solver or option, an adaptive solver, or a learned one that has no table.
    """
    spec = Spec.parse(text)
    if guidance and not (model.num_classes or model.guide):
        raise ValueError(f"{model.id} has no classes, which classifier-free guidance needs")
    if spec.solver and (guidance or transfer):
        given = "guidance" if guidance else "transfer"
        raise ValueError(f"--{given} chooses the table of a learned solver, and {spec.name} is none")
    if grid and not spec.gridded:
        raise ValueError(f"the times of {spec.name} are its own: leave --grid out")
    plan, table = spec.on(Grid.parse(grid) if grid else None).plan_for(model, nfe, guidance, transfer=transfer)
    if table:
        return table
    solver, options = plan.solver, dict(spec.options)
    name = re.sub("[^a-z0-9.]+", "-", spec.name.lower()).strip(
        "-."
    )  # of one's own solver, a name that a table can have
    facts: dict[str, Any] = dict(solver=name, title=solver.title, paper=solver.paper, options=options)
    if plan.trained_on != "nothing":  # what was found is for this model alone
        facts |= dict(
            model=model.id, model_sha256=model.sha256, model_conditions=model.conditions, model_given=model.given,
            found_on=plan.trained_on, found_with=plan.found_with,
        )  # fmt: skip
    return TableFile.of(trace(plan, coordinate_of(model.path)), model.path, **facts)


def _at_budget(file: TableFile, nfe: int) -> TableFile:
    """A table of learned times at another number of evaluations; see `solvers.learned.carried`."""
    told = f"solver {file.solver} for NFE {file.nfe}"
    if file.solver != "times" or file.training is None:
        raise BudgetError(f"{told} at NFE {nfe}: its table has {file.nfe} rows; learned times alone go elsewhere")
    try:
        base = Spec.parse(file.training.initial)
        plans = (base.plan(file.noise_path, budget) for budget in (file.nfe, nfe))
        return at_budget(file, *plans)
    except ValueError as error:
        raise BudgetError(f"{told} at NFE {nfe}: {error}") from None


def _of_a_table(name: str, text: str) -> dict[str, Any]:
    """The options of a solver that is known by its tables: whose table it takes, and of which NFE."""
    known, given = {"transfer": "", "trained_nfe": 1}, dict[str, Any]()
    for item in filter(None, map(str.strip, text.split(","))):
        key, _, value = (word.strip() for word in item.partition("="))
        if key not in known or key in given or not value:
            raise ValueError(
                f"solver {name} is a table and takes no options but transfer=MODEL and trained_nfe=N: not {item!r}"
            )
        given[key] = _value(f"solver {name}: {key}", value, known[key])
    return {key: given[key] for key in known if key in given}


def _parts(text: str) -> tuple[str, str, str, str]:
    """(solver, options, "@" or "", grid) of a sentence; a solver of one's own is FILE.py:NAME or module:NAME."""
    own = re.fullmatch(r"\s*(.+?\.py:\w+|[\w.]+:\w+(?=\s*(?:[:@]|$)))\s*(?::([^@]*))?(@?)(.*)", text)
    if own and is_code(own[1]) and own[1].partition(":")[0] not in solvers():
        return own[1], (own[2] or "").strip(), own[3], own[4]
    head, at, grid = text.partition("@")
    name, _, rest = (word.strip() for word in head.partition(":"))
    return name, rest, at, grid


def _options(solver: Solver, text: str) -> dict[str, Any]:
    """The options of `OPTION=VALUE,...`, in the solver's order."""
    known, given = solver.known_options, dict[str, Any]()
    for item in filter(None, map(str.strip, text.split(","))):
        key, sep, value = (word.strip() for word in item.partition("="))
        if key not in known:
            raise ValueError(nearest(key, list(known), f"option of solver {solver.name}"))
        if not sep:
            raise ValueError(f"solver {solver.name}: write {key}=VALUE")
        if key in given:
            raise ValueError(f"solver {solver.name}: {key} is given twice")
        given[key] = _value(f"solver {solver.name}: {key}", value, known[key])
    solver.claimed_order(**given)  # refuses values that options cannot have
    return {key: given[key] for key in known if key in given}


def _value(what: str, text: str, default: Any) -> Any:
    """A value of the type of the default."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise SettingError(f"{what} is true or false, not {text!r}")
        return text.lower() == "true"
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            kind = "an integer" if isinstance(default, int) else "a number"
            raise SettingError(f"{what} takes {kind}, not {text!r}") from None
    return text


def _text(value: Any) -> str:
    """A value as `_value` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else str(value)
