"""The command that says what to cite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from fastsample.bench.cli.words import path
from fastsample.datasets.names import nearest

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample cite scire

fastsample cite edm-cifar10-uncond-vp

fastsample cite results-paper > samplers.bib
"""
)
def cite(
    what: Annotated[
        list[str], typer.Argument(help="A solver, a model, or the folder of a store, which cites fastsample too.")
    ],
) -> None:
    """Print BibTeX of the papers of solvers and models, or of all that a store has rows of."""
    from fastsample.bench.installation.code import code
    from fastsample.results.papers.bibtex import bibtex, of_fastsample

    papers: list[str] = []
    entries: list[str] = []
    for one in what:
        if (path(one) / "rows").is_dir():
            entries = [of_fastsample(code())]
            papers += _of_store(one)
        else:
            papers += _of(one)
    told = [*entries, *bibtex(papers)]
    typer.echo("\n\n".join(told or [of_fastsample(code())]))  # of what comes with the package


def _of_store(folder: str) -> Iterator[str]:
    from fastsample.results.comparable import STATED
    from fastsample.results.store import Store

    rows = [row for row in Store(path(folder), create=False).rows() if STATED not in row.protocol]
    for name in sorted({row.solver for row in rows}):
        yield from _papers(name) or []
    for name in sorted({model for row in rows for model in (row.model, row.guide) if model}):
        yield from _papers(name.partition("@")[0]) or []


def _of(word: str) -> list[str]:
    from fastsample.models.catalogue import model_names
    from fastsample.solvers.learned.kinds import LEARNED
    from fastsample.solvers.own import all_solvers

    if (found := _papers(word)) is None:
        known = [*all_solvers(), *LEARNED, *model_names()]
        raise ValueError(f"{nearest(word, known, 'solver, model or store')}")
    return found


def _papers(word: str) -> list[str] | None:
    """Of a solver, with or without options and grid, or of a model; None for another word."""
    from fastsample.models.catalogue import model_names
    from fastsample.models.public.cards import cards
    from fastsample.solvers.learned.kinds import LEARNED
    from fastsample.solvers.own import all_solvers

    name = word.partition(":")[0].partition("@")[0]
    if solver := (all_solvers() | dict(LEARNED)).get(name):
        return [solver.paper]
    if word in cards():
        return list(cards()[word].papers)
    return [] if word in model_names() else None
