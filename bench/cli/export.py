"""Commands that look into a solver's table, carry it out of the benchmark, and read one back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fastsample.bench.cli.store import OUT, print_sheet
from fastsample.bench.cli.words import (
    EMBEDDED,
    GUIDANCE,
    GUIDE,
    INTERVAL,
    MODEL,
    NEGATIVE,
    Words,
    console,
    finite,
    path,
    solver_words,
)
from fastsample.bench.limits import TABLE_NFE

__all__ = ["app"]

app = typer.Typer()

_SOLVER = r"NAME\[:OPTION=VALUE,...]\[@GRID]; a learned or imported solver by its name."
_MODEL = typer.Option(help=MODEL)
_GRID = typer.Option(help=r"Time grid. \[default: the solver's own]")
_NFE = typer.Option(min=1, max=TABLE_NFE, help="Function evaluations to spend.")
_GUIDANCE = typer.Option(callback=finite, help=f"{GUIDANCE} A learned table is for one.")
_GUIDE = typer.Option(help=GUIDE)
_INTERVAL = typer.Option(help=INTERVAL)
_NEGATIVE, _EMBEDDED = typer.Option(help=NEGATIVE), typer.Option(callback=finite, help=EMBEDDED)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample explain dpmpp-2m --nfe 6

fastsample explain scire:order=3 --nfe 8 --model cifar10-tiny-flow --json
"""
)
def explain(
    solver: Annotated[str, typer.Argument(help=_SOLVER)],
    nfe: Annotated[int, _NFE] = 6,
    model: Annotated[str, _MODEL] = "cifar10-tiny-vp",
    grid: Annotated[str | None, _GRID] = None,
    guidance: Annotated[float, _GUIDANCE] = 0.0,
    guide: Annotated[str | None, _GUIDE] = None,
    guidance_interval: Annotated[str | None, _INTERVAL] = None,
    negative: Annotated[str | None, _NEGATIVE] = None,
    embedded_guidance: Annotated[float | None, _EMBEDDED] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """A solver as numbers: times, coefficients, sum rules, order, stability, cost, free parameters."""
    from fastsample.bench.protocol import open_under
    from fastsample.bench.request import read_request
    from fastsample.solvers.proofs.explain import explain as look
    from fastsample.solvers.spec import table_of

    asked = read_request(
        None, guidance=guidance, guide=guide, guidance_interval=guidance_interval, negative=negative,
        embedded_guidance=embedded_guidance,
    )  # fmt: skip
    found = open_under(model, asked, console)
    told = look(table_of(solver, found, nfe, grid=grid, guidance=guidance))
    if as_json:
        typer.echo(json.dumps(asdict(told), allow_nan=False))
        return
    noises = [f"z_{k}" for k in range(len(told.rows[0].w))]
    columns = ("row", "t", "lambda", "alpha", "sigma", "a", *(f"f_{j}" for j in range(told.nfe)), *noises)
    table = Table(header_style="bold", title=f"{told.title}, f = {told.coordinate}", title_justify="left")
    for name in (*columns, "order 0", "order 1"):
        table.add_column(name, justify="right", no_wrap=True)
    for i, row in enumerate(told.rows):
        lam = "-" if row.lam is None else f"{row.lam:.3f}"
        empty = [""] * (told.nfe - len(row.b))
        numbers = [f"{v:.4g}" for v in (row.alpha, row.sigma, row.a, *row.b)] + empty + [f"{v:.4g}" for v in row.w]
        name = "x" if i == told.nfe else str(i)
        table.add_row(name, f"{row.t:.4f}", lam, *numbers, f"{row.order0:.1e}", f"{row.order1:.1e}")
    console.print(table, width=max(console.width, 12 * len(table.columns)), crop=False, no_wrap=True, soft_wrap=True)
    variable = "t" if told.coordinate == "velocity" else "lambda"
    lines = {
        "path": f"{told.path}{', made for ' + told.model if told.model else ', for every model on it'}",
        "order 0": f"a prediction that is constant: {told.verdict('order0')}",
        "order 1": f"a prediction that is linear in {variable}: {told.verdict('order1')}",
        "order": (f"{told.order:.2f}, " if told.order is not None else "") + told.order_note,
        "cost": f"NFE {told.nfe}: one evaluation for each row but the last, {told.forwards} network calls in all",
        "error in x_T": f"with the predictions held {told.stability.start:.3g} of it are in the result",
        "errors": str(told.stability),
        "linear model": f"y' = z y on the linear path: {told.stability.stiffness}",
        "trained on": f"{told.trained_on}{': ' if told.trained_with else ''}{told.trained_with}",
        "free numbers": f"{told.parameters}: {told.convention}",
        "paper": told.paper,
    }
    if told.stability.noise:
        lines["noise"] = f"standard deviation {told.stability.noise:.3g} in the result, with the predictions held"
    for key, value in (told.training or {}).items():
        steps = ", ".join(f"{line[0]}: {line[-1]:.2f}" for line in value) if key == "history" else ""
        lines[f"training: {key}"] = f"validation dB after step {steps}" if steps else str(value)
    facts = Table.grid(padding=(0, 2))
    for key, text in lines.items():
        facts.add_row(key, escape(text))
    console.print(facts, highlight=False)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample identities

fastsample identities --solver lms,ipndm-v,cab:order=3,theta=0,dpmpp-3m --format json
"""
)
def identities(
    solver: Annotated[
        Words, typer.Option(help=r"NAME\[:OPTION=VALUE,...] to compare. \[default: all, with the options that matter]")
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
    with console.status("") as status:
        found = find(asked or None, status.update)
    if form == "json":
        typer.echo(json.dumps(found.to_dict("records"), indent=2))
        return
    told = found.assign(
        methods=found["methods"].map(" = ".join), difference=found["difference"].map("{:.1e}".format),
        tolerance=found["tolerance"].map("{:.0e}".format),
    )  # fmt: skip
    print_sheet(plain(told, "Solvers that are one method"), form, out)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample export --solver bns --nfe 8 --model cifar10-tiny-flow --to diffusers -o scheduler

fastsample export --solver dpmpp-2m --nfe 8 --to python --prediction eps -o sampler.py

fastsample export --solver unipc:order=3 --nfe 6 --model gmm2d-flow --to json
"""
)
def export(
    solver: Annotated[str, typer.Option(help=_SOLVER)],
    to: Annotated[str, typer.Option(help="diffusers, json or python.")],
    nfe: Annotated[int, _NFE] = 8,
    model: Annotated[str, _MODEL] = "cifar10-tiny-vp",
    grid: Annotated[str | None, _GRID] = None,
    guidance: Annotated[float, _GUIDANCE] = 0.0,
    guide: Annotated[str | None, _GUIDE] = None,
    guidance_interval: Annotated[str | None, _INTERVAL] = None,
    negative: Annotated[str | None, _NEGATIVE] = None,
    embedded_guidance: Annotated[float | None, _EMBEDDED] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Take another model's learned table.")] = False,
    prediction: Annotated[
        str | None, typer.Option(help="What the network there returns: x0, eps, velocity or v.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File, or folder for diffusers, to write.", parser=path)
    ] = None,
) -> None:
    """Carry a solver into other programs.

    json is the table, python one file of torch code, diffusers a folder for TableScheduler.from_pretrained. By default
    the network there returns the velocity on flow paths, and elsewhere x0 for python and eps for diffusers; of a
    diffusers pipeline the scheduler is the very pipeline's.
    """
    from fastsample.bench.protocol import open_under
    from fastsample.bench.request import read_request
    from fastsample.solvers.exports.export import export as write
    from fastsample.solvers.spec import table_of

    asked = read_request(
        None, guidance=guidance, guide=guide, guidance_interval=guidance_interval, negative=negative,
        embedded_guidance=embedded_guidance,
    )  # fmt: skip
    found = open_under(model, asked, console)
    file = table_of(solver, found, nfe, grid=grid, guidance=guidance, transfer=transfer)
    if to == "diffusers" and found.told and not found.convention:
        raise ValueError(f"{found.id} scales what its network takes and returns, so no scheduler plays tables in it")
    made = write(file, to, out, prediction, found.convention)
    trained = f", trained on {file.trained_on}" if file.trained_on != "nothing" else ""
    told = f"{file.title}, {file.nfe} evaluations{trained}: {made}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)


@app.command(
    "import",
    epilog="""
[bold]Examples[/]

fastsample import bns-cifar10-tiny-flow-8.json

fastsample import heun-vp-linear-8.json --name my-heun
""",
)
def import_(
    file: Annotated[Path, typer.Argument(help="A table file, written by export or distill.", parser=path)],
    name: Annotated[str | None, typer.Option(help=r"Of the solver. \[default: the one in the file]")] = None,
) -> None:
    """Read a table back; bench finds it by its name."""
    from fastsample.solvers.exports.export import import_table

    table, kept = import_table(file, name)
    trained = f", trained on {table.trained_on}{': ' if table.trained_with else ''}{table.trained_with}"
    told = f"{table.title}, {table.nfe} evaluations{trained if table.trained_on != 'nothing' else ''}: {kept}"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    model = table.model_given or table.model or f"MODEL (any on the path {table.path['name']})"
    console.print(
        f"fastsample bench --model {model} --solver {table.solver} --nfe {table.nfe}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
