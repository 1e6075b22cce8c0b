"""The command that says what is here, what is missing, and what it would give."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from fastsample.bench.cli.words import console, told
from fastsample.datasets.names import nearest

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample doctor

fastsample doctor --format json
"""
)
def doctor(
    form: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
) -> None:
    """Say what is here and what is missing: code, device, cache, weights, models, extras, and what each gives.

    Nothing is fetched, and what is missing is no error.
    """
    if form not in ("rich", "json"):
        raise ValueError(nearest(form, ["rich", "json"], "format"))
    with told("looking at what is here"):
        from fastsample.bench.installation.state import findings

        found = list(findings())
    if form == "json":
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    group = ""
    for one in found:
        if one.group != group:
            group = one.group
            console.print(f"[bold]{group}[/]")
        mark = {True: "[green]here[/]   ", False: "[yellow]missing[/]", None: "       "}[one.here]
        state = "" if one.told == "missing" else f": {one.told}"
        console.print(f"  {mark} {escape(one.name)}{escape(state)}", highlight=False, soft_wrap=True)
        for line in (f"gives {one.gives}" if one.gives else "", one.wanted):
            if line:
                console.print(f"          {escape(line)}", style="dim", highlight=False, soft_wrap=True)
