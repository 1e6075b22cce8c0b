"""Tables as solvers: learned and imported ones, found by name for the model that they were made for.

A table file is looked for among those that ship with the package (for the embedded models) and in the folder `tables`
of FASTSAMPLE_HOME, where `fastsample distill` and `fastsample import` put them; of two for the same purpose the own
one wins.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol

from fastsample.datasets.files import warn_once, write_atomically
from fastsample.datasets.home import data_home
from fastsample.datasets.names import number
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.imported.dss import shipped_dss
from fastsample.solvers.imported.methods import PUBLISHED
from fastsample.solvers.learned.kinds import LEARNED
from fastsample.solvers.solver import Facts, Plan, Solver, solvers
from fastsample.solvers.table import play
from fastsample.solvers.table_file import TableFile, TableFileError, read_table

__all__ = ["Answers", "add_table", "find_table", "fits", "learned_tables", "place_of", "table_plan", "table_solvers"]


class Answers(Protocol):
    """What decides the answers of a model: of one that is open, or of the rows of a store."""

    @property
    def id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def conditions(self) -> str: ...
    @property
    def classifier(self) -> str: ...
    @property
    def guide(self) -> str: ...
    @property
    def guided_within(self) -> tuple[float | None, float | None]: ...


def learned_tables() -> Iterator[TableFile]:
    """Every table that is here, own ones first; those that cannot be read are left out, and named once."""
    for file in sorted((data_home() / "tables").glob("*.json")):
        try:
            yield read_table(file)
        except TableFileError as error:
            warn_once(f"{error}; it is left out: remove it, or make it again")
    with as_file(files("fastsample.solvers") / "tables") as shipped:
        yield from (read_table(file) for file in sorted(shipped.glob("*.json")))
    yield from shipped_dss()


def table_solvers() -> set[str]:
    """Names that are solvers by their tables."""
    return {*LEARNED, *PUBLISHED} | {file.solver for file in learned_tables()}


def find_table(
    solver: str, model: Model, nfe: int, guidance: float = 0.0, *, transfer: bool = False, of: str = ""
) -> TableFile:
    """The table of a learned solver for a model.

    Args:
        transfer: where the model has none, take another model's whose path is the same.
        of: take the table of this model, and no other.

    Raises:
        BudgetError: if there are only some of other budgets, or that of the model named is for another path.
        ValueError: if there is none at all; the messages say what there is and how to make it.
    """
    mine = [file for file in learned_tables() if file.solver == solver and of in ("", file.model)]
    playable = [
        file for file in mine
        if file.noise_path == model.path and file.guidance in (0.0, guidance) and file.guide in ("", model.guide)
    ]  # fmt: skip
    fitting = [file for file in playable if fits(file, model, guidance)]
    for file in fitting + (playable if transfer or of else []):
        if file.nfe == nfe:
            return file
    if of and mine and not playable:
        raise BudgetError(
            f"solver {solver}:transfer={of} has times of the path {mine[0].path['name']}, and {model.id} is on "
            f"{model.path.name}"
        )
    if of:
        known = ", ".join(map(str, sorted({file.nfe for file in mine}))) or "none"
        raise BudgetError(f"solver {solver}:transfer={of} has tables for NFE {known}, not {nfe}")
    budgets = ", ".join(map(str, sorted({file.nfe for file in fitting})))
    others = ", ".join(sorted({file.model for file in playable if file not in fitting}))
    known = f"there are tables for NFE {budgets}" if budgets else "there is no table for this model and guidance"
    if others and not budgets:
        known += f", but for {others} (on the same path): --transfer takes such a one"
    command = f"fastsample distill {solver} --model {shlex.quote(model.given or model.id)} --nfe {nfe}"
    command += f" --guidance {number(guidance)}" if guidance else ""
    special = model.guide or model.guided_within != (None, None)
    make = f"`{command}`{' with the guide and the interval' if special else ''} makes one"
    make = make if solver in LEARNED and not model.classifier else ""
    if solver in PUBLISHED:
        given = shlex.quote(model.given or model.id)
        make = "; or ".join(filter(None, (make, f"`fastsample import FILE --model {given}` reads a published one")))
    why = f"solver {solver} at NFE {nfe} on {model.id}: {'; '.join(filter(None, (known, make)))}"
    raise BudgetError(why) if budgets else ValueError(why)


def fits(file: TableFile, model: Answers, guidance: float) -> bool:
    """Whether a table was made for the model under this guidance, or for every model on its path."""
    made_for = file.model, file.model_sha256, file.guidance, file.guide, file.guided_within
    sha256 = model.sha256 if file.model_sha256 or not file.imported else ""  # a paper names its model, and no hash
    mine = made_for == (model.id, sha256, guidance, model.guide, model.guided_within)
    mine = mine and file.model_conditions in ("", model.conditions)
    return not file.model or (mine and not model.classifier)  # no table is learned under a classifier's guidance


def table_plan(file: TableFile) -> Plan:
    """A plan that plays the table; it runs on models of the table's path."""

    def solve(denoiser: Denoiser, x: Any, times: Any, *, noise: Any = None) -> Any:
        return play(file.table, denoiser, x, noise)

    facts = Facts(title=file.title, paper=file.paper, coordinate=file.coordinate, order=0, stochastic=bool(file.w))
    solver = Solver(name=file.solver, solve=solve, **vars(facts))
    path = file.noise_path
    # The first point, with its own time and scale, is row 0 of the table; the plan itself starts where the noise is.
    # A published table may end past clean data, where its result is compared with clean data.
    end = file.end if path.sigma(file.end) > 0 else path.t_of_lam(math.inf)
    times = (path.t_noise, *file.times[1:], end)
    return Plan(solver, path, path, Grid("learned"), file.nfe, times, {})


def add_table(file: TableFile) -> Path:
    """Keep a table among the own ones; it replaces one of the same solver, model, guidance and NFE.

    Raises:
        ValueError: for a table with the name of a registered solver.
    """
    if file.solver in solvers():
        raise ValueError(f"{file.solver} is a solver of its own here: give the table another name with --name")
    target = place_of(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: stream.write(file.to_json().encode()), read_table)
    return target


def place_of(file: TableFile) -> Path:
    """Where a table lies among the own ones."""
    weight = f"w{number(file.guidance)}" if file.guidance else ""
    if file.guide or file.guided_within != (None, None):
        weight += f"-by-{hashlib.sha256(file.guidance_words.encode()).hexdigest()[:8]}"
    other = (
        file.model_conditions[:8] if file.model_given or ":" in file.model else ""
    )  # files of one name may hold several models
    name = "-".join(filter(None, (file.solver, file.model, other, weight, str(file.nfe))))
    return data_home() / "tables" / f"{re.sub('[/:]', '_', name)}.json"
