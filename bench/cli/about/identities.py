"""The command that finds which named solvers are one method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fastsample.bench.cli.store import OUT, print_sheet
from fastsample.bench.cli.words import Words, solver_words, told

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample identities

fastsample identities --solver lms,ipndm-v,cab:order=3,theta=0,dpmpp-3m --format json
"""
)
def identities(
    solver: Annotated[
        Words, typer.Option(help=r"NAME \[:OPTION=VALUE,...] to compare. \[default: all, with the options that matter]")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help=r"rich, markdown, latex, html, csv or json. \[default: rich]")
    ] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Which named solvers are one method, found by their tables and results on exact problems; under a minute."""
    from fastsample.results.forms.sheet import plain
    from fastsample.solvers.proofs.identities import identities as find
    from fastsample.solvers.spec import Spec

    asked = [Spec.parse(text) for text in solver_words(solver) or ()]
    with told("comparing solvers") as tell:
        found = find(asked or None, tell)
    if form == "json":
        typer.echo(json.dumps(found.to_dict("records"), indent=2))
        return
    words = found.assign(
        methods=found["methods"].map(" = ".join), difference=found["difference"].map("{:.1e}".format),
        tolerance=found["tolerance"].map("{:.0e}".format),
    )  # fmt: skip
    print_sheet(plain(words, "Solvers that are one method"), form, out)
