"""Commands that say what there is to choose from, fetch it, and test it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from fastsample.bench.cli.words import Words, console, path

__all__ = ["app"]

app = typer.Typer()
models = typer.Typer(no_args_is_help=True, help="Public checkpoints: what they are, fetching them; tests of any model.")
app.add_typer(models, name="models")


@app.command("list", epilog="Example: fastsample list solvers --long")
def list_(
    what: Annotated[
        str, typer.Argument(help="solvers, tables, models, recipes, datasets, references, protocols, grids or metrics")
    ],
    long: Annotated[bool, typer.Option("--long", help="Options, defaults, notes on official code.")] = False,
) -> None:
    """What there is to choose from."""
    from fastsample.bench.cli.listing import listing

    columns, lines = listing(what, long)
    table = Table(*(Column(name, overflow="fold") for name in columns), header_style="bold")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)


@models.command(
    "fetch",
    epilog="""
[bold]Examples[/]

fastsample models fetch edm-cifar10-uncond-vp

fastsample models fetch sde-vp-ddpmpp-deep --checkpoint ~/Downloads/checkpoint_8.pth
""",
)
def models_fetch(
    model: Annotated[str, typer.Argument(help="Id of a public model, or FILE.toml with a card of one's own.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file with its weights, instead of a download.", parser=path)
    ] = None,
) -> None:
    """Download, verify and convert a public model, with the first stage that it needs."""
    from fastsample.datasets.home import data_home
    from fastsample.models.public.cards import card_named
    from fastsample.models.public.model import fetch_all

    for file in fetch_all(card_named(model), data_home(), console, checkpoint):
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)


@models.command("info", epilog="Example: fastsample models info edm-cifar10-uncond-vp")
def models_info(
    model: Annotated[str, typer.Argument(help="Id of a public model, or FILE.toml with a card of one's own.")],
) -> None:
    """What a public model is and where its file is; nothing is fetched."""
    from fastsample.datasets.home import data_home
    from fastsample.models.public.cards import card_named
    from fastsample.models.public.description import describe

    table = Table.grid(padding=(0, 2))
    for line in describe(card_named(model), data_home()):
        table.add_row(*map(escape, line))
    console.print(table)


@models.command(
    "test",
    epilog="""
[bold]Examples[/]

fastsample models test mine.py:model

fastsample models test cifar10-tiny-flow --device cuda
""",
)
def models_test(
    model: Annotated[str, typer.Argument(help="FILE.py:NAME, or any other model.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Ask a model what is asked of one before hours are spent on it: shape, ends, batch, speed, and its convention.

    Exit 1 where it is not what it is said to be, with the convention that fits.
    """
    from fastsample.bench.sampling import choose_device
    from fastsample.models.catalogue import open_model
    from fastsample.models.foreign.checks import checks

    wrong = False
    for one in checks(open_model(model, console=console), choose_device(device)):
        verdict = {True: "[green]fine[/]", False: "[bold red]WRONG[/]", None: "    "}[one.fine]
        console.print(f"{verdict:<14} {one.name:<13} {escape(one.told)}", highlight=False, soft_wrap=True)
        wrong |= one.fine is False
    raise typer.Exit(wrong)


@models.command(
    "check",
    epilog="""
[bold]Examples[/]

fastsample models check

fastsample models check edm-cifar10-uncond-vp dit-xl2-256

fastsample models check mine.toml#my-flow --json
""",
)
def models_check(
    names: Annotated[
        Words, typer.Argument(metavar="[ID]...", help=r"Public models, or FILE.toml#ID. \[default: all]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Ask whether the files of public models and of their references are where the cards say; nothing is fetched.

    Exit 1 if a model has no source that can be reached.
    """
    from fastsample.models.public.cards import card_named, cards
    from fastsample.models.public.check import check, without_source

    found = check([card_named(name) for name in names] if names else list(cards().values()))
    gone = without_source(found, "model")
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        columns = ("of", "source", "status", "size [MB]", "on the card", "type")
        table = Table(*(Column(name, overflow="fold") for name in columns), header_style="bold")
        for one in found:
            size, expected = (f"{mb:,.0f}" if mb else "" for mb in ((one.size or 0) / 1e6, one.expected_mb))
            status = f"{one.status}, at {one.moved}" if one.moved else one.status
            of = one.id if one.kind == "model" else f"reference {one.id}"
            table.add_row(*map(escape, (of, one.url, status, size, expected, one.type)))
        console.print(table)
        for kind, ids in (("models", gone), ("references", without_source(found, "reference"))):
            if ids:
                told = f"{kind} without a source that can be reached: {', '.join(ids)}"
                console.print(told, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(bool(gone))
