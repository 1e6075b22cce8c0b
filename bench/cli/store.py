"""Commands over stores: tables, several in one, what can go, and published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastsample.bench.cli.words import (
    Screen,
    Words,
    budget_option,
    console,
    errors,
    path,
    solver_words,
    split_words,
    told,
    writable,
)

if TYPE_CHECKING:
    from fastsample.results.forms.sheet import Sheet

__all__ = ["FORMAT", "OUT", "SORT", "app", "print_sheet", "print_sheets"]

app = typer.Typer()

upkeep = typer.Typer(no_args_is_help=True, help="Keep a store small.")
app.add_typer(upkeep, name="store")

_STORE = typer.Argument(help="Folder written by bench --out.", parser=path)
FORMAT = typer.Option(
    "--format", help=r"rich, markdown, latex, html or csv. \[default: by the ending of --out, else rich]"
)
OUT = typer.Option(
    "--out",
    "-o",
    help=r"File to write: .md, .tex, .html, .csv or .txt. \[default: the screen]",
    parser=path,
    callback=writable,
)
SORT = typer.Option("--sort", help="A column, such as psnr, fd or NFE: the best first.")
_ENDINGS = {".md": "markdown", ".tex": "latex", ".html": "html", ".csv": "csv", ".txt": "rich"}


def print_sheet(sheet: Sheet, form: str | None, out: Path | None) -> None:
    """Print a table, or write it to a file, in the form that is asked for or that the file's ending has."""
    print_sheets([sheet], form, out)


def print_sheets(sheets: Sequence[Sheet], form: str | None, out: Path | None) -> None:
    """The same of several tables, one after another."""
    from fastsample.datasets.files import write_atomically
    from fastsample.results.forms.sheet import to_rich, write

    if out and not form and out.suffix not in _ENDINGS:
        known = ", ".join(_ENDINGS)
        raise ValueError(f"tables are written as {known}, not {out.name!r}; --format says another file's format")
    form = form or (_ENDINGS[out.suffix] if out else "rich")
    if form != "rich":
        text = "\n".join(write(sheet, form) for sheet in sheets)
    elif out is None:
        console.print(*(to_rich(sheet, console.is_terminal) for sheet in sheets))
        return
    else:
        Screen(width=200, file=(stream := StringIO())).print(*(to_rich(sheet, styled=False) for sheet in sheets))
        text = stream.getvalue()
    if out is None:
        print(text, end="")
    else:
        write_atomically(out, lambda stream: stream.write(text.encode()))
        errors.print(f"{form} in {out}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample table results-paper

fastsample table results-paper --metric psnr,fd --columns metric,nfe --no-intervals --format markdown

fastsample table results-paper --model cifar10-tiny-flow --solver ddim,heun,unipc --where samples=1000 -o table.tex

fastsample table results-paper --metric psnr,fd --sort "fd 10"

fastsample table results-paper --metric fid --published
"""
)
def table(
    store: Annotated[Path, _STORE] = Path("results-store"),
    rows: Annotated[Words, typer.Option(help=r"Of model, solver, grid, nfe, metric. \[default: solver]")] = None,
    columns: Annotated[Words, typer.Option(help=r"The same, outermost first. \[default: nfe]")] = None,
    metric: Annotated[Words, typer.Option(help=r"Full names, or kinds such as fd. \[default: psnr]")] = None,
    model: Annotated[Words, typer.Option(help="Only these models, in this order.")] = None,
    solver: Annotated[Words, typer.Option(help="Only these, in this order: NAME or NAME:OPTION=VALUE,...")] = None,
    where: Annotated[Words, typer.Option(help="Only rows with FIELD=VALUE, such as samples=1000.")] = None,
    intervals: Annotated[bool, typer.Option(help="Half-widths of 95 % intervals behind the values.")] = True,
    published: Annotated[bool, typer.Option("--published", help="Reported numbers beside the measured ones.")] = False,
    sort: Annotated[
        str, typer.Option(help=r"A column, as 10 or 'fd 10', best first. \[default: long tables by mean place]")
    ] = "",
    form: Annotated[str | None, FORMAT] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Compare the solvers of a store in a table like those of papers.

    The best is set off only where its paired 95 % interval from every other excludes zero.
    """
    from fastsample.results.metrics import registered
    from fastsample.results.store import Store
    from fastsample.results.tables import table_of

    opened, published_by = Store(store, create=False), None
    if not all(registered(name) for row in opened.rows() for name in row.metrics):
        import fastsample.bench.metrics.measures  # noqa: F401 - the facts of metrics that are not the project's own
    if published:
        from fastsample.bench.suite import suite

        published_by = suite()
    with told(f"comparing the rows of {store}"):
        sheet = table_of(
            opened, rows=split_words(rows) or ("solver",), columns=split_words(columns) or ("nfe",),
            metrics=split_words(metric), models=split_words(model), solvers=solver_words(solver),
            where=split_words(where), intervals=intervals, suite=published_by, sort=sort,
        )  # fmt: skip
    print_sheet(sheet, form, out)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample show results-store

fastsample show results-store --sort fd

fastsample show results-store --cells
"""
)
def show(
    store: Annotated[Path, _STORE] = Path("results-store"),
    sort: Annotated[str, SORT] = "",
    cells: Annotated[bool, typer.Option("--cells", help="The id of each row's cell, which diff takes.")] = False,
    form: Annotated[str | None, FORMAT] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Read a store back, one line per row."""
    from fastsample.results.overview import overview_sheet
    from fastsample.results.store import Store
    from fastsample.results.training import training_notes

    rows = Store(store, create=False).frame()
    if rows.empty:
        console.print(f"{store} holds no finished cell", highlight=False, markup=False, soft_wrap=True)
        return
    names = [str(name)[8:] for name in rows if str(name).startswith("metrics.")]
    notes = tuple(("", note) for note in training_notes(rows, names))
    print_sheet(overview_sheet(rows, sort, notes, cells=cells), form, out)


@app.command(epilog="Example: fastsample diff results-store 3f2a 91bc")
def diff(
    store: Annotated[Path, _STORE],
    first: Annotated[str, typer.Argument(help="The start of a row's cell, as show --cells has it.")],
    second: Annotated[str, typer.Argument(help="The start of another's.")],
) -> None:
    """Name the fields in which two rows of a store differ: what decides two unequal numbers."""
    from fastsample.results.overview import differences
    from fastsample.results.overview import to_rich as draw
    from fastsample.results.store import Store

    console.print(draw(differences(Store(store, create=False).frame(), first, second)))


@app.command(epilog="Example: fastsample merge node-1 node-2 -o results-paper")
def merge(
    stores: Annotated[list[Path], typer.Argument(help="Folders written by bench --out.", parser=path)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The store to make; it may be one of them.", parser=path)],
) -> None:
    """Bring the rows of several stores, and the parts that they keep, into one.

    Equal rows are one. Two stores with different numbers under one identity are refused, and nothing is written.
    """
    from fastsample.results.storage.merging import merge as merged
    from fastsample.results.store import Store

    rows, parts = merged(stores, out)
    total = len(list((Store(out, create=False).folder / "rows").glob("*.json")))
    told = f"{rows} rows and {parts} kept parts brought to {out}, which has {total} rows"
    console.print(told, highlight=False, markup=False, soft_wrap=True)


@upkeep.command(
    epilog="""
[bold]Examples[/]

fastsample store prune results-store --dry-run

fastsample store prune results-store --kept
"""
)
def prune(
    store: Annotated[Path, _STORE],
    kept: Annotated[bool, typer.Option("--kept", help="Also the parts of bench --keep.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
) -> None:
    """Remove what no row, table or interval needs.

    Parts of unfinished cells (bench would go on from them), damaged rows, arrays and images without a row, and the
    features in rows of older versions.
    """
    from rich.filesize import decimal

    from fastsample.results.storage.pruning import prune as remove
    from fastsample.results.storage.pruning import waste
    from fastsample.results.store import Store

    opened = Store(store, create=False)
    found = waste(opened, kept=kept)
    if not dry_run:
        remove(opened, found)
    for one in found:
        told = f"{one.what}: {len(one.sizes)} files, {decimal(sum(one.sizes.values()))}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    total = decimal(sum(size for one in found for size in one.sizes.values()))
    told = f"{total} in {store} can go" if dry_run else f"{total} removed from {store}"
    console.print(told if found else f"{store} has nothing to remove", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample published --dataset cifar10 --solver scire --nfe 12

fastsample published --model edm-cifar10-uncond-vp --metric fid --format csv

fastsample published --dataset cifar10 --metric fid --nfe 10 --sort value

fastsample published --method gas --trained-on adversarial --confidence high
"""
)
def published(
    paper: Annotated[str | None, typer.Option(help="arXiv id.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Such as cifar10.")] = None,
    model: Annotated[str | None, typer.Option(help="Our id of the checkpoint, or a part of its printed name.")] = None,
    solver: Annotated[str | None, typer.Option(help="Our name of the solver, or a part of its printed name.")] = None,
    nfe: Annotated[int | None, budget_option("Function evaluations, as printed.", 100_000)] = None,
    metric: Annotated[str | None, typer.Option(help="fid, is, recall, psnr, ...")] = None,
    method: Annotated[
        str | None, typer.Option(help="Its one name for all orders, grids and spellings: ipndm, ipndm+gits, gas, ...")
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(help="none, statistics, mse, l1, lpips, inception, adversarial, classifier, reward or weights."),
    ] = None,
    confidence: Annotated[str | None, typer.Option(help="How well the source is known: high, medium or low.")] = None,
    sort: Annotated[str, SORT] = "",
    form: Annotated[str | None, FORMAT] = None,
    out: Annotated[Path | None, OUT] = None,
) -> None:
    """Search the numbers that papers report, each with its source and how well that is known."""
    from fastsample.results.published import published as numbers
    from fastsample.results.published import search, summary

    found = search(
        numbers(), paper=paper, dataset=dataset, model=model, solver=solver, nfe=nfe, metric=metric, method=method,
        trained_on=trained_on, confidence=confidence,
    )  # fmt: skip
    if found.empty:
        console.print("no published number fits; without options all are listed")
        return
    print_sheet(summary(found, sort), form, out)
