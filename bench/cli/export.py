"""Commands that look into a solver's table, carry it out of the benchmark, and read one back."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import (
    EMBEDDED,
    GUIDANCE,
    GUIDE,
    INTERVAL,
    MODEL,
    NEGATIVE,
    budget_option,
    console,
    finite,
    path,
)
from fastsample.bench.limits import TABLE_NFE

if TYPE_CHECKING:
    from fastsample.bench.request import Request
    from fastsample.models.model import Model

__all__ = ["app"]

app = typer.Typer()

_DEFAULT = "cifar10-tiny-vp"
_SOLVER = r"NAME \[:OPTION=VALUE,...] \[@GRID] in one word; a learned or imported solver by its name."
_MODEL = typer.Option(help=f"{MODEL} \\[default: {_DEFAULT}]", autocompletion=completion.models)
_BETAS = typer.Option(
    help="A noise schedule in the place of a model: scaled-linear:0.00085,0.012,1000 (Stable Diffusion's), "
    "linear:FIRST,LAST,STEPS, cosine:STEPS, or a file of betas."
)
_GRID = typer.Option(help=r"Time grid. \[default: the solver's own]", autocompletion=completion.grids)
_TO = typer.Option(help="sigmas, k-diffusion, comfyui, a1111, diffusers, diffusers-config, json or python.")
_NFE = budget_option("Function evaluations to spend.", TABLE_NFE)
_GUIDANCE = typer.Option(callback=finite, help=f"{GUIDANCE} A learned table is for one.")
_GUIDE = typer.Option(help=GUIDE)
_INTERVAL = typer.Option(help=INTERVAL)
_NEGATIVE, _EMBEDDED = typer.Option(help=NEGATIVE), typer.Option(callback=finite, help=EMBEDDED)


def _opened(model: str | None, betas: str | None, asked: Request) -> Model:
    """The model of these words, or an exact one with these betas."""
    from fastsample.bench.protocol import open_under
    from fastsample.models.betas import model_of_betas

    if betas is None:
        return open_under(model or _DEFAULT, asked, console)
    if model:
        raise ValueError("--betas stands in the place of a model, whose schedule is its own: give one of the two")
    return model_of_betas(betas)


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
    model: Annotated[str | None, _MODEL] = None,
    betas: Annotated[str | None, _BETAS] = None,
    grid: Annotated[str | None, _GRID] = None,
    guidance: Annotated[float, _GUIDANCE] = 0.0,
    guide: Annotated[str | None, _GUIDE] = None,
    guidance_interval: Annotated[str | None, _INTERVAL] = None,
    negative: Annotated[str | None, _NEGATIVE] = None,
    embedded_guidance: Annotated[float | None, _EMBEDDED] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """A solver as numbers: times, coefficients, sum rules, order, stability, cost, free parameters."""
    from fastsample.bench.request import read_request
    from fastsample.results.forms.screen import FittedTable
    from fastsample.solvers.proofs.explain import explain as look
    from fastsample.solvers.spec import table_of

    asked = read_request(
        None, guidance=guidance, guide=guide, guidance_interval=guidance_interval, negative=negative,
        embedded_guidance=embedded_guidance,
    )  # fmt: skip
    found = _opened(model, betas, asked)
    told = look(table_of(solver, found, nfe, grid=grid, guidance=guidance))
    if as_json:
        typer.echo(json.dumps(asdict(told), allow_nan=False))
        return
    noises = [f"z_{k}" for k in range(len(told.rows[0].w))]
    columns = ("row", "t", "lambda", "alpha", "sigma", "a", *(f"f_{j}" for j in range(told.nfe)), *noises)
    table = FittedTable(title=f"{told.title}, f = {told.coordinate}")
    for name in (*columns, "order 0", "order 1"):
        table.add_column(name, justify="right")
    for i, row in enumerate(told.rows):
        lam = "-" if row.lam is None else f"{row.lam:.3f}"
        empty = [""] * (told.nfe - len(row.b))
        numbers = [f"{v:.4g}" for v in (row.alpha, row.sigma, row.a, *row.b)] + empty + [f"{v:.4g}" for v in row.w]
        name = "x" if i == told.nfe else str(i)
        table.add_row(name, f"{row.t:.4f}", lam, *numbers, f"{row.order0:.1e}", f"{row.order1:.1e}")
    console.print(table)
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
        "free numbers": f"{told.parameters}, {told.convention.removeprefix('free numbers: ')}",
        "paper": told.paper,
    }
    if told.stability.noise:
        lines["noise"] = f"standard deviation {told.stability.noise:.3g} in the result, with the predictions held"
    for key, value in (told.training or {}).items():
        if key == "history":
            steps = ", ".join(f"{line[0]}: {line[-1]:.2f}" for line in value)
            lines["training: history"] = f"validation dB after step {steps}"
        elif key not in ("free_parameters", "convention"):  # they stand above
            lines[f"training: {key.replace('_', ' ')}"] = _brief(value)
    facts = Table.grid(padding=(0, 2))
    for key, text in lines.items():
        facts.add_row(key, escape(text))
    console.print(facts, highlight=False)


def _brief(value: object) -> str:
    """Numbers with two decimals, and hashes to as many digits as fit a line; --json has them whole."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_brief(one)}" for name, one in value.items())
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return re.sub(r"\b[0-9a-f]{64}\b", lambda match: match[0][:16], text)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample export --solver bns --nfe 8 --model cifar10-tiny-flow --to diffusers -o scheduler

fastsample export --solver dpmpp-2m --nfe 8 --to python --prediction eps -o sampler.py

fastsample export --solver unipc:order=3 --nfe 6 --model gmm2d-flow --to json

fastsample export --solver dpmpp-2m --nfe 8 --betas scaled-linear:0.00085,0.012,1000 --to comfyui
"""
)
def export(
    solver: Annotated[str, typer.Option(help=_SOLVER, autocompletion=completion.solvers)],
    to: Annotated[str, _TO],
    nfe: Annotated[int, _NFE] = 8,
    model: Annotated[str | None, _MODEL] = None,
    betas: Annotated[str | None, _BETAS] = None,
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

    sigmas is a line of numbers, k-diffusion a module with sample(model, x), comfyui a custom node with a sampler and
    its sigmas, a1111 a script that adds a schedule type; diffusers-config is a folder for one of diffusers' own
    schedulers, where one is the solver, and diffusers one for TableScheduler.from_pretrained, which plays any table;
    json is the table, python one file of torch code. By default the network there returns the velocity on flow paths,
    and elsewhere x0 for python and eps for diffusers; of a diffusers pipeline the scheduler is the very pipeline's.
    """
    from fastsample.bench.request import read_request
    from fastsample.solvers.exports.export import export as write
    from fastsample.solvers.spec import table_of

    asked = read_request(
        None, guidance=guidance, guide=guide, guidance_interval=guidance_interval, negative=negative,
        embedded_guidance=embedded_guidance,
    )  # fmt: skip
    found = _opened(model, betas, asked)
    file = table_of(solver, found, nfe, grid=grid, guidance=guidance, transfer=transfer)
    if to.startswith("diffusers") and found.told and not found.convention:
        raise ValueError(f"{found.id} scales what its network takes and returns, so no scheduler plays tables in it")
    made, told = write(file, to, out, prediction, found.convention)
    trained = f", trained on {file.trained_on}" if file.trained_on != "nothing" else ""
    console.print(
        f"{file.title}, {file.nfe} evaluations{trained}: {made}", highlight=False, markup=False, soft_wrap=True
    )
    if told:
        console.print(told, highlight=False, markup=False, soft_wrap=True)


@app.command(
    "import",
    epilog="""
[bold]Examples[/]

fastsample import bns-cifar10-tiny-flow-8.json

fastsample import heun-vp-linear-8.json --name my-heun

fastsample import network-snapshot-010000.pkl --model edm-cifar10-uncond-vp

fastsample import best_v2.pt --model edm-cifar10-uncond-vp --solver unipc:order=3,variant=bh1 --mode time
""",
)
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A table file, written by export or distill; or a published one of DyWeight, EPD, AdaSDE, AMED "
            "(.pkl), GAS, LD3 or DyWeight on flows (.pt), of which nothing is executed.",
            parser=path,
        ),
    ],
    name: Annotated[str | None, typer.Option(help=r"Of the solver. \[default: the one in the file]")] = None,
    model: Annotated[str | None, typer.Option(help=f"That a published file was learned for. {MODEL}")] = None,
    guidance: Annotated[
        float | None, typer.Option(callback=finite, help=f"{GUIDANCE} A published file was learned under it.")
    ] = None,
    grid: Annotated[str | None, typer.Option(help="Its time grid, where the file says none.")] = None,
    solver: Annotated[str | None, typer.Option(help="Of LD3: the solver whose times it learned, with options.")] = None,
    mode: Annotated[str | None, typer.Option(help="Of LD3: time or lambda; of GAS: theory or lms-pc.")] = None,
    t_end: Annotated[float | None, typer.Option(callback=finite, help="Of GAS: the time at which it ends.")] = None,
) -> None:
    """Read a table back, or a published learned solver; bench finds it by its name."""
    from fastsample.bench.protocol import check_guidance, open_under
    from fastsample.bench.request import read_request
    from fastsample.datasets.names import number
    from fastsample.solvers.exports.export import import_table
    from fastsample.solvers.imported.files import is_published, read_published
    from fastsample.solvers.imported.importing import Kept, import_published
    from fastsample.solvers.imported.layouts import Said

    said = Said(guidance, grid or "", solver or "", mode or "", t_end, name or "")
    if not is_published(file):
        if model or said != Said(name=name or ""):
            raise ValueError(f"{file} is a table, which says itself what it belongs to: give --name alone")
        table, where = import_table(file, name)
        kept = Kept.of(table, where)
        model = table.model_given or table.model or f"MODEL (any on the path {table.path['name']})"
    else:
        published = read_published(file)
        if model is None:
            raise ValueError(f"{file} does not say which model it was learned for: give --model")
        asked = read_request(None, guidance=guidance or 0.0)
        found = open_under(model, asked, console)
        check_guidance(found, asked)
        kept = import_published(published, found, said)
    console.print(str(kept), highlight=False, markup=False, soft_wrap=True)
    weight = f" --guidance {number(kept.guidance)}" if kept.guidance else ""
    console.print(
        f"fastsample bench --model {model} --solver {kept.solver} --nfe {kept.nfe}{weight}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
