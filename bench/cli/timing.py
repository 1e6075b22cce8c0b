"""The command that measures how long samplers take."""

from __future__ import annotations

from typing import Annotated

import typer

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import GUIDANCE, Words, budgets, console, solver_words, split_words, told

__all__ = ["app"]

app = typer.Typer()


@app.command(name="time", epilog="Example: fastsample time --solver ddim,scire,unipc --nfe 10 --device cuda")
def time_(
    model: Annotated[
        Words, typer.Option(help=r"Model ids. \[default: cifar10-tiny-vp]", autocompletion=completion.models)
    ] = None,
    solver: Annotated[
        Words,
        typer.Option(
            help=r"NAME \[:OPTION=VALUE,...] \[@GRID] in one word. \[default: scire]", autocompletion=completion.solvers
        ),
    ] = None,
    nfe: Annotated[Words, typer.Option(help=r"Function evaluations to spend. \[default: 10]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=r"Images per network call. \[default: 64; on a GPU what fits]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="float64, float32, tf32, bf16 or fp16.")] = "float32",
    guidance: Annotated[float | None, typer.Option(help=rf"{GUIDANCE} \[default: 0]")] = None,
) -> None:
    """Measure how long an image takes: the network's calls and the solver's arithmetic, each by itself."""
    from fastsample.bench.jobs.outlook import timings
    from fastsample.bench.request import read_request
    from fastsample.bench.sweep import timed

    request = read_request(
        None, model=split_words(model), solver=solver_words(solver), nfe=budgets(nfe) or None, batch_size=batch_size,
        device=device, precision=precision, guidance=guidance,
    )  # fmt: skip
    with told("opening models") as tell:
        cells, worker = timed(request, console)
        table = timings(cells, worker, tell)
    console.print(table)
