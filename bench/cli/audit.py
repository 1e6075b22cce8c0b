"""The command that audits published numbers against the suite and its stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastsample.bench.cli.store import FORMAT, OUT, print_sheet
from fastsample.bench.cli.words import console, path

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample audit --paper 2312.00094

fastsample audit --model edm-cifar10-uncond-vp --solver unipc --format csv -o commands.csv

fastsample audit results-paper --paper 2312.00094 --metric fid
"""
)
def audit(
    store: Annotated[
        Path | None, typer.Argument(help="Folder written by bench --out, with what was measured.", parser=path)
    ] = None,
    paper: Annotated[str | None, typer.Option(help="arXiv id.")] = None,
    model: Annotated[str | None, typer.Option(help="Our id of the checkpoint, or a part of its printed name.")] = None,
    solver: Annotated[str | None, typer.Option(help="Our name of the solver, or a part of its printed name.")] = None,
    metric: Annotated[str | None, typer.Option(help="fid, is, recall, ...")] = None,
    form: Annotated[str | None, FORMAT] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Say which published numbers can be run here and how, or with a store whether measured ones agree, and why not.

    Without a store: the command of each, with the protocol that its paper used, and what that has otherwise than ours
    by default. With a store: measured, published, their difference, and the fields that could explain it.
    """
    import fastsample.bench.metrics.measures  # noqa: F401 - the facts of metrics that are not the project's own
    from fastsample.bench.suite import suite
    from fastsample.results.papers.audit import audit as audited
    from fastsample.results.published import published, search
    from fastsample.results.store import Store

    found = search(published(), paper=paper, model=model, solver=solver, metric=metric)
    if found.empty:
        console.print("no published number fits; without options all are listed")
        return
    print_sheet(audited(found, suite(), Store(store, create=False) if store else None), form, out)
