"""The command line: every command is a few lines over a function that a notebook can call."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table
from typer.core import TyperGroup

from fastsample.bench.cli import audit as cli_audit
from fastsample.bench.cli import distill as cli_distill
from fastsample.bench.cli import export as cli_export
from fastsample.bench.cli import gate as cli_gate
from fastsample.bench.cli import report as cli_report
from fastsample.bench.cli import store as cli_tables
from fastsample.bench.cli import train as cli_train
from fastsample.bench.cli.words import Words, console, errors, solver_words, split_words, told

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:  # of a file that is cut short: typer takes it for a user who gives up
            raise RuntimeError(told(error)) from error


app = typer.Typer(
    name="fastsample",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="The reference benchmark for fast sampling of diffusion and flow models.",
)
for commands in (cli_tables, cli_audit, cli_report, cli_gate, cli_distill, cli_export, cli_train):
    app.add_typer(commands.app)

@app.command(
    epilog="""
[bold]Examples[/]

fastsample bench --solver scire --nfe 10

fastsample bench --model cifar10-tiny-flow --solver flow-solver:order=3,heun,euler --nfe 5,10,20 --samples 1000

fastsample bench --config sweep.toml --device cuda --out results-paper

fastsample bench --model edm-cifar10-uncond-vp --solver unipc --nfe 10 --samples 50000 --device cuda
"""
)
def bench(
    model: Annotated[
        Words, typer.Option(help=r"Model ids, .safetensors files or .toml cards. \[default: cifar10-tiny-vp]")
    ] = None,
    solver: Annotated[
        Words, typer.Option(help=r"Solvers, each NAME or NAME:OPTION=VALUE,... \[default: scire]")
    ] = None,
    nfe: Annotated[Words, typer.Option(help=r"Function evaluations to spend. \[default: 10]")] = None,
    grid: Annotated[Words, typer.Option(help=r"Time grids. \[default: each solver's own]")] = None,
    samples: Annotated[int | None, typer.Option(help=r"Images per cell. \[default: 256]")] = None,
    batch_size: Annotated[int | None, typer.Option(help=r"Images per network call. \[default: 64]")] = None,
    seed: Annotated[int | None, typer.Option(help=r"Seed of the noise. \[default: 0]")] = None,
    seeds: Annotated[int | None, typer.Option(help=r"Repeat each cell with this many seeds. \[default: 1]")] = None,
    device: Annotated[str | None, typer.Option(help=r"auto, cpu, cuda, ... \[default: auto]")] = None,
    precision: Annotated[str | None, typer.Option(help=r"float32, float64, bf16 or fp16. \[default: float32]")] = None,
    guidance: Annotated[float | None, typer.Option(help=r"Classifier-free guidance weight. \[default: 0]")] = None,
    classifier_scale: Annotated[
        float | None, typer.Option(help=r"Scale of guidance by the model's own classifier. \[default: 0]")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help=r"Classes of conditional models: random or balanced. \[default: random]")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file with the weights of a public model, instead of a download.")
    ] = None,
    reference_steps: Annotated[
        int | None,
        typer.Option(help=r"Steps of the reference solutions. \[default: 100; exact models 640]"),
    ] = None,
    transfer: Annotated[
        bool | None, typer.Option("--transfer", help="Let a learned solver take another model's table; rows say so.")
    ] = None,
    metrics: Annotated[
        Words,
        typer.Option(help=r"psnr, truncation, curvature, straightness, fd, fid, fd-inf, fid-inf, kid, is, precision, "
                          r"recall. \[default: psnr,fd,fid]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help=r"Folder of the store. \[default: results-store]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with the same keys; the command line wins.")] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="Inception-v3 weights of torch-fidelity, for fid.")
    ] = None,
) -> None:
    """Sample every (model, solver, grid, NFE), measure, and keep one row per cell.

    Finished cells are never computed again; an interrupted run goes on where it stopped.
    """
    from fastsample.bench.request import read_request
    from fastsample.bench.sweep import run_sweep

    request = read_request(
        config, model=split_words(model), solver=solver_words(solver), nfe=split_words(nfe), grid=solver_words(grid),
        samples=samples,
        batch_size=batch_size, seed=seed, seeds=seeds, device=device, precision=precision, guidance=guidance,
        classifier_scale=classifier_scale,
        labels=labels, checkpoint=checkpoint, reference_steps=reference_steps, transfer=transfer,
        metrics=split_words(metrics), out=out,
    )  # fmt: skip
    try:
        failures = run_sweep(request, console, inception_weights)
    except KeyboardInterrupt:
        errors.print("[yellow]interrupted; finished cells and shards are kept, the same command goes on from there[/]")
        raise typer.Exit(130) from None
    for failure in failures:
        errors.print(f"[bold red]failed:[/] {escape(failure)}", highlight=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


@app.command("list", epilog="Example: fastsample list solvers --long")
def list_(
    what: Annotated[str, typer.Argument(help="solvers, models, recipes, datasets, references, grids or metrics")],
    long: Annotated[bool, typer.Option("--long", help="Options, defaults, notes on official code.")] = False,
) -> None:
    """What there is to choose from."""
    from fastsample.bench.cli.listing import listing

    columns, lines = listing(what, long)
    table = Table(*(Column(name, overflow="fold") for name in columns), header_style="bold")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)


@app.command(epilog="Example: fastsample sample --solver scire:order=3 --nfe 12 -o grid.png")
def sample(
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("samples.png"),
    model: Annotated[str, typer.Option(help="Model id, .safetensors file or .toml card.")] = "cifar10-tiny-vp",
    solver: Annotated[str, typer.Option(help="NAME or NAME:OPTION=VALUE,...")] = "scire",
    nfe: Annotated[int, typer.Option(help="Function evaluations to spend.")] = 10,
    grid: Annotated[str | None, typer.Option(help=r"Time grid. \[default: the solver's own]")] = None,
    samples: Annotated[int, typer.Option(help="Images in the grid.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance weight.")] = 0.0,
    classifier_scale: Annotated[
        float, typer.Option(help="Scale of guidance by the model's own classifier.")
    ] = 0.0,
    labels: Annotated[str, typer.Option(help="Classes of conditional models: random or balanced.")] = "random",
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file with the weights of a public model, instead of a download.")
    ] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Take another model's learned table.")] = False,
) -> None:
    """Draw samples and write them as one image grid."""
    from fastsample.bench.drawing import draw
    from fastsample.bench.request import read_request

    request = read_request(
        None, model=(model,), solver=solver_words([solver]), nfe=nfe, grid=grid, samples=samples, seed=seed,
        device=device,
        guidance=guidance, classifier_scale=classifier_scale, labels=labels, checkpoint=checkpoint, transfer=transfer,
    )  # fmt: skip
    console.print(draw(request, out, console))


models = typer.Typer(no_args_is_help=True, help="Public checkpoints: what they are, and fetching them ahead of use.")
app.add_typer(models, name="models")


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
    checkpoint: Annotated[Path | None, typer.Option(help="A file with its weights, instead of a download.")] = None,
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


@app.command(epilog="Example: fastsample verify --solver scire,dpmpp-2m --picture orders.png")
def verify(
    solver: Annotated[Words, typer.Option(help=r"Solvers to verify. \[default: all]")] = None,
    golden: Annotated[
        Path | None, typer.Option(help=r"Folder of golden files. \[default: tests/data/golden of a clone]")
    ] = None,
    picture: Annotated[Path, typer.Option(help="PNG of error against NFE.")] = Path("verify.png"),
) -> None:
    """Prove every solver on exact mixtures: order of convergence, evaluations made, table, parity."""
    from fastsample.bench.cli.verify import run_verification

    if not run_verification(split_words(solver), golden, picture, console):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors become one clear message; 2 for a bad request, 1 for a failed run, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of names that the terminal cannot show
    logging.getLogger("torch_fidelity").setLevel(logging.ERROR)
    try:
        app()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        bad = isinstance(error, ValueError)
        label = "error" if bad else "failed"
        errors.print(f"[bold red]{label}:[/] {escape(told(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if bad else 1)
