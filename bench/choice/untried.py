"""What a store has not tried: tables that were learned, grids that were found, and pairs of solver and grid."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastsample.datasets.names import number
from fastsample.models.path import Path
from fastsample.results.commands import GIVEN
from fastsample.results.row import Row
from fastsample.results.store import Store
from fastsample.solvers.found.shelf import found_grids
from fastsample.solvers.learned.shelf import Answers, fits, learned_tables
from fastsample.solvers.spec import Spec, complete

__all__ = ["candidates", "finer", "trained", "untried"]

_NAMED = 3  # solvers that are named of those that were not tried


@cache
def _search() -> dict[str, Any]:
    return tomllib.loads((files("fastsample.bench.choice") / "search.toml").read_text("utf-8"))


def candidates() -> list[tuple[str, str]]:
    """(solver with its options, grid) of each pair that a search begins with."""
    return [(solver, grid) for solver in _search()["solver"] for grid in _search()["grid"]]


def finer(grid: str) -> list[str]:
    """The same grid with the parameters that are tried where it leads."""
    known: list[str] = _search()["finer"].get(grid, [])
    return known


def trained(model: Answers, guidance: float, budget: int | None, path: Path | None = None) -> list[tuple[str, int]]:
    """(sampler, NFE) of what was learned or found for a model: of each the one of most evaluations in the budget.

    Args:
        budget: evaluations at most; None for all that there are.
        path: of the model; without it, what was made for every model on a path is left out.
    """
    there = [
        (file.solver, file.nfe) for file in learned_tables()
        if (file.noise_path == path if path else file.model) and fits(file, model, guidance)
    ]  # fmt: skip
    mine = {"model": model.id, "sha256": model.sha256, "guidance": number(guidance)}
    there += [
        (f"{one.solver}@{one.name}", one.nfe) for one in found_grids() if mine.items() <= one.model.items()
    ]  # fmt: skip
    if budget is None:
        return list(dict.fromkeys(there))
    most: dict[str, int] = {}
    for name, nfe in there:
        if nfe <= budget:
            most[name] = max(nfe, most.get(name, 0))
    return list(most.items())


@dataclass(frozen=True)
class _OfRow:
    """The model of a row, as far as tables depend on it."""

    row: Row

    @property
    def id(self) -> str:
        return self.row.model

    @property
    def sha256(self) -> str:
        return self.row.checkpoint_sha256

    @property
    def conditions(self) -> str:
        return self.row.protocol.get("model card", "")

    @property
    def classifier(self) -> str:
        return self.row.protocol.get("classifier guidance", "")

    @property
    def guide(self) -> str:
        return self.row.protocol.get("guide", "")

    @property
    def guided_within(self) -> tuple[float | None, float | None]:
        return self.row.guidance_low, self.row.guidance_high


def untried(store: Store, rows: Sequence[Row], budget: int | None, *, raced: bool) -> str:
    """What the rows of a model leave out, in a sentence or two with the command that tries it; "" where it is nothing.

    Args:
        budget: evaluations at most; None for no limit, where no pairs are counted.
        raced: whether the pairs of a search were tried at this budget.
    """
    first, said = rows[0], list[str]()
    here = {(_sampler(row), row.nfe_asked) for row in rows}
    ends = (first.t_end, first.sigma_min, first.sigma_max)
    there = trained(_OfRow(first), first.guidance, budget) if ends == (None, None, None) else []
    if left := [f"{name} for NFE {nfe}" for name, nfe in there if (_complete(name), nfe) not in here]:
        said.append(f"what was learned or found for {first.model}: {', '.join(left)}")
    if budget and not raced:
        pairs = [
            (_complete(f"{solver}@{of}"), solver) for solver, grid in candidates() for of in (grid, *finer(grid))
        ]  # fmt: skip
        tried = {name for name, nfe in here if nfe == budget}
        solvers = dict.fromkeys(solver for _, solver in pairs)
        new = [one for one in solvers if not any(of == one and name in tried for name, of in pairs)]
        some = f" ({len(new)} of {len(solvers)} solvers not at all, such as {', '.join(new[:_NAMED])})" if new else ""
        if count := sum(name not in tried for name, _ in pairs):
            said.append(f"{count} of {len(pairs)} pairs of a training-free solver and a grid at NFE {budget}{some}")
    if not said:
        return ""
    model = first.protocol.get(GIVEN, first.model)
    command = shlex.join(
        ["fastsample", "recommend", str(store.folder), "--model", model, "--budget", str(budget), "--search"]
    )
    return f"Not tried: {'; '.join(said)}." + (f" `{command}` tries them." if budget else "")


@cache
def _complete(text: str) -> str:
    name, at, grid = text.partition("@")
    return f"{complete(name)}{at}{grid}"


def _sampler(row: Row) -> str:
    """Its sentence, as `_complete` has it; of a learned one its name alone."""
    return str(Spec(row.solver, row.options)) if row.learned else _complete(f"{row.sampler}@{row.grid}")
