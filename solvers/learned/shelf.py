"""Tables as solvers: learned and imported ones, found by name for the model that they were made for.

A table file is looked for among those that ship with the package (for the embedded models) and in the folder `tables`
of FASTSAMPLE_HOME, where `fastsample distill` and `fastsample import` put them; of two for the same purpose the own
one wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fastsample.datasets.files import warn_once, write_atomically
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.results.commands import number
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.solver import Plan, Solver, get, solvers
from fastsample.solvers.table import play, trace
from fastsample.solvers.table_file import TableFile, TableFileError, read_table

__all__ = ["LEARNED", "add_table", "find_table", "fits", "learned_tables", "table_of", "table_plan", "table_solvers"]

# name: (title, paper, what is learned)
LEARNED = {
    "bns": ("BNS", "2403.01329", "every number of the table"),
    "dss": ("Differentiable solver search", "2505.21114", "weights of the velocities that sum to 1, and the times"),
    "rk1-bespoke": ("RK1-Bespoke", "2310.19075", "time and scale of Euler steps"),
    "rk2-bespoke": ("RK2-Bespoke", "2310.19075", "time and scale of midpoint steps"),
    "times": ("Learned times", "2405.15506", "the time grid of a training-free solver"),
}


def learned_tables() -> Iterator[TableFile]:
    """Every table that is here, own ones first; those that cannot be read are left out, and named once."""
    for file in sorted((data_home() / "tables").glob("*.json")):
        try:
            yield read_table(file)
        except TableFileError as error:
            warn_once(f"{error}; it is left out: remove it, or make it again")
    with as_file(files("fastsample.solvers") / "tables") as shipped:
        yield from (read_table(file) for file in sorted(shipped.glob("*.json")))


def table_solvers() -> set[str]:
    """Names that are solvers by their tables."""
    return set(LEARNED) | {file.solver for file in learned_tables()}


def find_table(solver: str, model: Model, nfe: int, guidance: float = 0.0, *, transfer: bool = False) -> TableFile:
    """The table of a learned solver for a model.

    Args:
        transfer: where the model has none, take another model's whose path is the same.

    Raises:
        BudgetError: if there are only some of other budgets.
        ValueError: if there is none at all; both messages say what there is and how to make it.
    """
    mine = [file for file in learned_tables() if file.solver == solver]
    playable = [file for file in mine if file.noise_path == model.path and file.guidance in (0.0, guidance)]
    fitting = [file for file in playable if fits(file, model, guidance)]
    for file in fitting + (playable if transfer else []):
        if file.nfe == nfe:
            return file
    budgets = ", ".join(map(str, sorted({file.nfe for file in fitting})))
    others = ", ".join(sorted({file.model for file in playable if file not in fitting}))
    known = f"there are tables for NFE {budgets}" if budgets else "there is no table for this model and guidance"
    if others and not budgets:
        known += f", but for {others} (on the same path): --transfer takes such a one"
    command = f"fastsample distill {solver} --model {model.id} --nfe {nfe}"
    command += f" --guidance {number(guidance)}" if guidance else ""
    make = f"`{command}` makes one" if solver in LEARNED and not model.classifier else ""
    why = f"solver {solver} at NFE {nfe} on {model.id}: {'; '.join(filter(None, (known, make)))}"
    raise BudgetError(why) if budgets else ValueError(why)


def fits(file: TableFile, model: Model, guidance: float) -> bool:
    """Whether a table was made for the model under this guidance, or for every model on its path."""
    mine = (file.model, file.model_sha256, file.guidance) == (model.id, model.sha256, guidance)
    return not file.model or (mine and not model.classifier)  # no table is learned under a classifier's guidance


def table_of(
    text: str, model: Model, nfe: int, *, grid: str | None = None, guidance: float = 0.0, transfer: bool = False
) -> TableFile:
    """The table file of any fixed-grid solver, `NAME` or `NAME:OPTION=VALUE,...`, for a model: traced or learned.

    Raises:
        ValueError: for an unknown solver or option, an adaptive solver, or a learned one that has no table.
    """
    name, _, rest = text.partition(":")
    if guidance and not model.num_classes:
        raise ValueError(f"{model.id} has no classes, which classifier-free guidance needs")
    if name not in solvers() and name in table_solvers():
        if rest or grid:
            raise ValueError(f"solver {name} is a table: it takes no options, and its times are its own")
        return find_table(name, model, nfe, guidance, transfer=transfer)
    solver = get(name)
    if guidance or transfer:
        given = "guidance" if guidance else "transfer"
        raise ValueError(f"--{given} chooses the table of a learned solver, and {name} is none")
    options = solver.parse(rest)
    plan = solver.plan(model.path, nfe, grid, **options)
    facts: dict[str, Any] = dict(solver=name, title=solver.title, paper=solver.paper, options=options)
    return TableFile.of(trace(plan, coordinate_of(model.path)), model.path, **facts)


def table_plan(file: TableFile) -> Plan:
    """A plan that plays the table; it runs on models of the table's path."""

    def solve(denoiser: Denoiser, x: Any, times: Any, *, noise: Any = None) -> Any:
        return play(file.table, denoiser, x, noise)

    solver = Solver(
        name=file.solver, solve=solve, title=file.title, paper=file.paper, family="table", coordinate=file.coordinate,
        order=0, grids=("learned",), flow_grid=None, path=None, singular_start=True, scheduler=_fixed, defaults={},
        variants=({},), note="", stochastic=bool(file.w), adaptive=False,
    )  # fmt: skip
    path = file.noise_path
    # The first point, with its own time and scale, is row 0 of the table; the plan itself starts where the noise is.
    times = (path.t_noise, *file.times[1:], file.end)
    return Plan(solver, path, path, Grid("learned"), file.nfe, times, {})


def _fixed(*_: object) -> Any:
    raise ValueError("the times of a table are its own")


def add_table(file: TableFile) -> Path:
    """Keep a table among the own ones; it replaces one of the same solver, model, guidance and NFE."""
    folder = data_home() / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(
        filter(None, (file.solver, file.model, f"w{number(file.guidance)}" if file.guidance else "", str(file.nfe)))
    )
    target = folder / f"{name.replace('/', '_')}.json"
    write_atomically(target, lambda stream: stream.write(file.to_json().encode()), read_table)
    return target
