"""Commands over a store: figures, the report page and the recommendation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fastsample.bench.cli.store import print_sheets
from fastsample.bench.cli.words import Words, budgets, console, errors, finite, path, solver_words, split_words
from fastsample.bench.limits import MOST_NFE
from fastsample.results.metrics import MAIN

__all__ = ["app"]

app = typer.Typer()

_STORE = typer.Argument(help="Folder written by bench --out.", parser=path)
_MODEL = typer.Option("--model", help="Only these models.")
_SOLVER = typer.Option("--solver", help="Only these solvers: NAME or NAME:OPTION=VALUE,...")
_WHERE = typer.Option("--where", help="Only rows with FIELD=VALUE, such as samples=1000.")
_CHECKPOINT = typer.Option(
    "--checkpoint", help="Files of models that rows were made of and that have no name: .safetensors or .toml."
)
_DEVICE = typer.Option("--device", help="auto, cpu, cuda, ...")


@app.command(
    epilog="""
[bold]Examples[/]

fastsample plot results-paper -o quality.svg

fastsample plot results-paper --metric psnr,fd --against seconds -o seconds.png

fastsample plot results-paper --kind samples --model cifar10-tiny-flow --nfe 5,10,20 --images 4 -o samples.png

fastsample plot results-paper --kind error --nfe 10 -o error.svg

fastsample plot results-paper --kind transfer --against best --format markdown
"""
)
def plot(
    store: Annotated[Path, _STORE] = Path("results-store"),
    kind: Annotated[str, typer.Option(help="quality, transfer, samples, error or curvature.")] = "quality",
    metric: Annotated[
        Words, typer.Option(help=r"Of quality, transfer: full names, or kinds such as fd. \[default: psnr]")
    ] = None,
    against: Annotated[
        str,
        typer.Option(help="Of quality: nfe, or seconds per image. Of transfer: best, the best training-free solver."),
    ] = "nfe",
    model: Annotated[Words, _MODEL] = None,
    solver: Annotated[Words, _SOLVER] = None,
    nfe: Annotated[Words, typer.Option(help=r"Only these budgets. \[default: all; the middle one for error]")] = None,
    where: Annotated[Words, _WHERE] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help=r"To sample again. \[default: samples 4, error 16, curvature 32]"),
    ] = None,
    device: Annotated[str, _DEVICE] = "auto",
    checkpoint: Annotated[Words, _CHECKPOINT] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="Of transfer, a table instead: rich, markdown, latex, html or csv.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=r"PNG or SVG to write. \[default: quality.png]", parser=path)
    ] = None,
) -> None:
    """Draw a store: quality of its solvers, transfer of its learned tables, samples, errors on the way, curvature.

    Samples and trajectories are computed again, from the noise of the rows.
    """
    from fastsample.bench.learning.transfer import transfers
    from fastsample.bench.pictures import picture
    from fastsample.results.forms.figures import save
    from fastsample.results.store import Store
    from fastsample.results.transfer import sheet_of

    wanted = budgets(nfe)
    if form:
        if kind != "transfer":
            raise ValueError(f"--format is of transfer; `fastsample table` prints {kind} as numbers")
        found = transfers(
            Store(store, create=False), split_words(metric), against=against, models=split_words(model),
            solvers=solver_words(solver), nfe=wanted, where=split_words(where),
        )  # fmt: skip
        print_sheets([sheet_of(one) for one in found], form, out)
        return
    out = out or Path("quality.png")
    figure = picture(
        Store(store, create=False), kind, metrics=split_words(metric), against=against, models=split_words(model),
        solvers=solver_words(solver), nfe=wanted, where=split_words(where),
        images=images, device=device, checkpoints=split_words(checkpoint),
        say=lambda line: errors.print(line, highlight=False, markup=False, soft_wrap=True),
    )  # fmt: skip
    save(figure, out)
    console.print(f"{kind} of {store} in {out}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample report results-paper -o report.html

fastsample report results-paper --model cifar10-tiny-vp --images 0 -o numbers.html
"""
)
def report(
    store: Annotated[Path, _STORE] = Path("results-store"),
    model: Annotated[Words, _MODEL] = None,
    solver: Annotated[Words, _SOLVER] = None,
    where: Annotated[Words, _WHERE] = None,
    images: Annotated[
        int, typer.Option(min=0, max=64, help="Samples in each place of a matrix; 0 samples nothing again.")
    ] = 4,
    device: Annotated[str, _DEVICE] = "auto",
    checkpoint: Annotated[Words, _CHECKPOINT] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.", parser=path)] = Path("report.html"),
) -> None:
    """Write one self-contained page: summary, tables, figures, samples, and the provenance of every number."""
    from fastsample.bench.pictures import sampled
    from fastsample.bench.replay import Replay
    from fastsample.datasets.files import write_atomically
    from fastsample.results.report import report_of
    from fastsample.results.store import Store

    held = Store(store, create=False)
    replay = Replay(held, device, split_words(checkpoint))

    with console.status(Text(f"report of {store}")):
        page = report_of(
            held, models=split_words(model), solvers=solver_words(solver), where=split_words(where),
            again=lambda found: sampled(found, replay, images) if images else [],
        )  # fmt: skip
    write_atomically(out, lambda stream: stream.write(page.encode()))
    console.print(f"report of {store} in {out}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample recommend results-paper --budget 10

fastsample recommend results-paper --model cifar10-tiny-flow --target-psnr 30

fastsample recommend results-paper --max-seconds 0.02 --metric fd --json
"""
)
def recommend(
    store: Annotated[Path, _STORE] = Path("results-store"),
    budget: Annotated[int | None, typer.Option(min=1, max=MOST_NFE, help="Function evaluations at most.")] = None,
    target_psnr: Annotated[
        float | None, typer.Option(callback=finite, help="PSNR in dB to reach with the fewest evaluations.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.0, callback=finite, help="Sampling time of one image at most.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What decides: a name as show prints it, or a kind.")] = MAIN,
    model: Annotated[Words, _MODEL] = None,
    where: Annotated[Words, _WHERE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of sentences.")] = False,
) -> None:
    """Say which sampler to use for a model, by how much it wins, how sure that is, and the command that plays it."""
    from fastsample.results.recommend import recommendations
    from fastsample.results.store import Store

    found = recommendations(
        Store(store, create=False), budget=budget, target_psnr=target_psnr, max_seconds=max_seconds, metric=metric,
        models=split_words(model), where=split_words(where),
    )  # fmt: skip
    if as_json:
        print(json.dumps([asdict(one) | {"commands": commands} for one, commands in found], indent=2))
        return
    for one, commands in found:
        text = "\n".join([str(one), *(f"  {line}" for line in commands)])
        console.print(text, highlight=False, markup=False, soft_wrap=True)
