"""The command that finds grids and statistics."""

from __future__ import annotations

from typing import Annotated

import typer

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import GUIDANCE, GUIDE, INTERVAL, Words, budgets, console, finite, kept, told
from fastsample.bench.limits import MOST_BATCH, TABLE_NFE

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample find gits --model cifar10-tiny-vp --solver ipndm --nfe 5,6

fastsample bench --model cifar10-tiny-vp --solver ipndm --grid gits,karras --nfe 5,6

fastsample find ems --model cifar10-tiny-flow

fastsample bench --model cifar10-tiny-flow --solver dpm-solver-v3,dpmpp-2m --nfe 5
"""
)
def find(
    what: Annotated[
        str, typer.Argument(help="gits, oss or dmn, a time grid; or ems, the statistics of dpm-solver-v3.")
    ],
    model: Annotated[
        str, typer.Option(help="Model id, .safetensors file or .toml card.", autocompletion=completion.models)
    ] = "cifar10-tiny-vp",
    solver: Annotated[
        str,
        typer.Option(
            help=r"SOLVER \[:OPTION=VALUE,...] that the grid is for. \[default: ipndm]",
            autocompletion=completion.solvers,
        ),
    ] = "",
    nfe: Annotated[Words, typer.Option(help=r"Function evaluations; one grid is found for each. \[default: 5]")] = None,
    samples: Annotated[int, typer.Option(min=8, max=100_000, help="Noises of the search.")] = 64,
    intervals: Annotated[int, typer.Option(min=4, max=10_000, help="Of the grid of lambda of statistics.")] = 60,
    official: Annotated[
        bool, typer.Option("--official", help="The published settings of gits and oss, and no choice by PSNR.")
    ] = False,
    guidance: Annotated[float, typer.Option(callback=finite, help=f"{GUIDANCE} What is found is for this one.")] = 0.0,
    guide: Annotated[str | None, typer.Option(help=GUIDE)] = None,
    guidance_interval: Annotated[str | None, typer.Option(help=INTERVAL)] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Samples per network call.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Find a time grid for a model, solver and NFE, or a model's statistics; `bench` finds them by name."""
    from fastsample.bench.finding import Finding
    from fastsample.bench.protocol import check_guidance, open_under
    from fastsample.bench.request import read_request
    from fastsample.bench.sampling import Sampler, choose_device
    from fastsample.datasets.home import data_home, unwritable
    from fastsample.datasets.names import nearest
    from fastsample.solvers.found.shelf import add_grid, add_statistics
    from fastsample.solvers.grids import FOUND
    from fastsample.solvers.spec import Spec

    if what not in (*FOUND, "ems"):
        raise ValueError(nearest(what, [*FOUND, "ems"], "search"))
    if what == "ems" and (solver or nfe or official):
        raise ValueError("statistics are of a model alone: leave --solver, --nfe and --official out")
    spec, wanted = Spec.parse(solver or "ipndm"), budgets(nfe, TABLE_NFE) or (5,)
    if spec.grid:
        raise ValueError(f"find {what} finds the grid: leave @{spec.grid} out")
    if why := unwritable(folder := data_home() / "found"):
        raise ValueError(
            f"what is found goes to {folder}, which cannot be written ({why}): set FASTSAMPLE_HOME to another folder"
        )
    asked = read_request(None, guidance=guidance, guide=guide, guidance_interval=guidance_interval)
    found = open_under(model, asked, console)
    check_guidance(found, asked)
    again = "what was found is kept; the search that was interrupted begins anew with the same command"
    again += "" if what == "ems" else ", which takes --nfe of what is left"
    with kept(again), told(f"{found.id} {what}") as tell:
        job = Finding(
            found, Sampler(choose_device(device)), guidance, samples, batch_size,
            lambda line: tell(f"{found.id} {line}"),
        )  # fmt: skip
        if what == "ems":
            statistics, facts = job.statistics(intervals)
            file = add_statistics(statistics, found, guidance, facts)
            console.print(f"statistics of {found.id}: {facts['told']}; {file}", highlight=False, soft_wrap=True)
            return
        for budget in wanted:
            grid = job.grid(what, spec, budget, official)  # type: ignore[arg-type]
            file, times = add_grid(grid), " ".join(f"{t:.4g}" for t in grid.times)
            reached = f" {max(grid.psnr.values()):.2f} dB on its noises;" if grid.psnr else ""
            console.print(f"NFE {budget}: {times};{reached} {grid.told}; {file}", highlight=False, soft_wrap=True)
