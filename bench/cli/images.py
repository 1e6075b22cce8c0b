"""Commands about images that no sampler here has drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import (
    EXTRACTOR_WEIGHTS,
    Words,
    budget_option,
    budgets,
    console,
    path,
    solver_words,
    split_words,
    weights_by_name,
    writable,
)

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Example[/]

fastsample score samples.npz --model cifar10-tiny-flow --name my-sampler --nfe 10 --samples 1000 --out results-mine
"""
)
def score(
    images: Annotated[
        Path, typer.Argument(help="Folder or zip file of images, or npz of arr_0 uint8 [n, h, w, 3].", parser=path)
    ],
    name: Annotated[str, typer.Option(help="What made them; tables mark it as stated.")],
    nfe: Annotated[int, budget_option("Evaluations that it spent, as stated.")],
    model: Annotated[
        str,
        typer.Option(
            help="Model that they are samples of: for its table, image size and reference set.",
            autocompletion=completion.models,
        ),
    ] = "",
    reference: Annotated[
        str, typer.Option(help=r"What they are compared with, as bench takes it. \[default: the model's own]")
    ] = "",
    samples: Annotated[int | None, typer.Option(help="How many they must be.")] = None,
    metrics: Annotated[
        Words, typer.Option(help=r"Metrics of images alone. \[default: fd,fid]", autocompletion=completion.metrics)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help=r"Images at once. \[default: 64]", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the store.", parser=path)] = Path("results-store"),
    inception_weights: Annotated[
        Path | None, typer.Option(help="Inception-v3 weights of torch-fidelity, for fid.", parser=path)
    ] = None,
    extractor_weights: Annotated[Words, typer.Option(help=EXTRACTOR_WEIGHTS)] = None,
) -> None:
    """Measure images that another program has made; their row stands in the tables, marked as stated."""
    from fastsample.bench.images.score import score
    from fastsample.bench.jobs.stages import Stages
    from fastsample.results.forms.sheet import to_rich
    from fastsample.results.overview import overview_sheet
    from fastsample.results.row import frame_of

    with Stages(console, f"measuring {images}"):
        row = score(
            images, out, name=name, nfe=nfe, model=model, reference=reference, samples=samples, batch_size=batch_size,
            device=device, weights=weights_by_name(extractor_weights, inception_weights), console=console,
            metrics=split_words(metrics) or (),
        )  # fmt: skip
    console.print(to_rich(overview_sheet(frame_of([row]))))
    told = f"{row.solver}: what made them and its NFE are as stated; {row.protocol['stated']}"
    console.print(told, style="dim", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Example[/]

fastsample encode --model cifar10-tiny-rfpp --solver heun --nfe 100 --samples 64
"""
)
def encode(
    model: Annotated[
        str, typer.Option(help="Model id, .safetensors file or .toml card.", autocompletion=completion.models)
    ] = "cifar10-tiny-rfpp",
    solver: Annotated[
        Words,
        typer.Option(
            help=r"NAME \[:OPTION=VALUE,...] \[@GRID] in one word. \[default: heun]", autocompletion=completion.solvers
        ),
    ] = None,
    nfe: Annotated[Words, typer.Option(help=r"Evaluations, half of them there and half back. \[default: 100]")] = None,
    samples: Annotated[int, typer.Option(help="Images, the first of the set.", min=2)] = 64,
    images: Annotated[
        str | None,
        typer.Option(help=r"A folder, a data set or folder:PATH\[@PREPROCESSING]. \[default: the model's data]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per network call.", min=1)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV to write as well.", parser=path, callback=writable)
    ] = None,
) -> None:
    """Take real images to noise and back, and say how well they are reconstructed."""
    from fastsample.bench.images.encode import encode
    from fastsample.bench.jobs.stages import Stages
    from fastsample.bench.request import read_request
    from fastsample.datasets.files import write_atomically
    from fastsample.results.forms.escaping import csv_text
    from fastsample.results.overview import to_rich

    request = read_request(
        None, model=(model,), solver=solver_words(solver) or ("heun",), nfe=budgets(nfe) or (100,),
        samples=samples, batch_size=batch_size, device=device,
    )  # fmt: skip
    with Stages(console, f"to noise and back by {request.solver[0]}"):
        found = encode(request, images, console)
    console.print(to_rich(found))
    if out:
        write_atomically(out, lambda stream: stream.write(csv_text(found).encode()))
