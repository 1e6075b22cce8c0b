"""Commands over a store: figures, the report page and the recommendation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastsample.bench.cli.store import print_sheets
from fastsample.bench.cli.words import (
    Words,
    budgets,
    console,
    errors,
    finite,
    kept,
    path,
    solver_words,
    split_words,
    told,
    writable,
)
from fastsample.bench.limits import MOST_NFE
from fastsample.results.metrics import MAIN

__all__ = ["app"]

app = typer.Typer()

_STORE = typer.Argument(help="Folder written by bench --out.", parser=path)
_MODEL = typer.Option("--model", help="Only these models.")
_SOLVER = typer.Option("--solver", help="Only these solvers: NAME or NAME:OPTION=VALUE,...")
_WHERE = typer.Option("--where", help="Only rows with FIELD=VALUE, such as samples=1000.")
_CHECKPOINT = typer.Option(
    "--checkpoint",
    help="Models that rows were made of and that have no name: files .safetensors or .toml, or FILE.py:NAME.",
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
        Path | None,
        typer.Option(
            "--out", "-o", help=r"PNG or SVG to write. \[default: quality.png]", parser=path, callback=writable
        ),
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
    with told(f"drawing {kind} of {store}"):
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
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.", parser=path, callback=writable)
    ] = Path("report.html"),
) -> None:
    """Write one self-contained page: summary, tables, figures, samples, and the provenance of every number."""
    from fastsample.bench.pictures import sampled
    from fastsample.bench.replay import Replay
    from fastsample.datasets.files import write_atomically
    from fastsample.results.report import report_of
    from fastsample.results.store import Store

    held = Store(store, create=False)
    replay = Replay(held, device, split_words(checkpoint))

    stage = f"writing the report of {store}"
    with told(stage) as tell:
        part = lambda title: tell(f"{stage}: {title}")  # noqa: E731
        page = report_of(
            held, models=split_words(model), solvers=solver_words(solver), where=split_words(where),
            again=lambda found: sampled(found, replay, images, part) if images else [], tell=part,
        )  # fmt: skip
    write_atomically(out, lambda stream: stream.write(page.encode()))
    console.print(f"report of {store} in {out}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample recommend --model cifar10-tiny-vp --budget 8

fastsample recommend results-paper --budget 10

fastsample recommend results-paper --budget 10 --search --plan

fastsample recommend results-paper --model cifar10-tiny-flow --target-psnr 30

fastsample recommend results-paper --max-seconds 0.02 --metric fd --json
"""
)
def recommend(
    store: Annotated[
        Path | None, typer.Argument(help=r"Folder written by bench --out. \[default: results-store]", parser=path)
    ] = None,
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
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Race the training-free solvers on all grids first, few samples of all and more of the best, and "
            "measure what was learned for the model. It is what happens where the store has no row of --model.",
        ),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the search will cost, and compute nothing.")] = False,
    samples: Annotated[
        int | None,
        typer.Option(min=2, max=100_000, help=r"Images of the search's last round. \[default: the store's, or 64]"),
    ] = None,
    device: Annotated[str, _DEVICE] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", help="The store to make, in the place of the argument.", parser=path)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of sentences.")] = False,
) -> None:
    """Say which sampler to use for a model, by how much it wins, how sure that is, and the command that plays it.

    And what the store has not tried. With --search, or for a --model of which there is nothing yet, it is tried.
    """
    from fastsample.bench.choice.race import raced, races
    from fastsample.bench.choice.untried import untried
    from fastsample.results.recommend import recommendations
    from fastsample.results.store import Store

    if store and out:
        raise ValueError(f"{store} and --out {out} are two stores, and one is read and written: give one")
    folder, names = store or out or Path("results-store"), split_words(model)
    opened = Store(folder, create=False) if (folder / "rows").is_dir() else None
    there = opened.rows() if opened else []
    anew = bool(names and budget and not store and not any(row.model in names for row in there))
    if search or anew:
        if budget is None or metric != MAIN:
            raise ValueError(f"a search is for a --budget of evaluations, and {MAIN} decides it")
        screen = errors if as_json else console
        say = lambda line: screen.print(line, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
        found_races = races(
            folder, names, budget, where=split_words(where), samples=samples, device=device, console=screen, say=say
        )
        for race in found_races:
            say(race.told())
        if plan:
            return
        with kept("what is finished is kept, the same command goes on from there"):
            for race in found_races:
                race.run()
        names = tuple(race.model for race in found_races)
    elif plan or samples or out:
        raise ValueError("--plan, --samples and --out are of a search: give --search, or a --model that has no rows")
    opened = opened or Store(folder, create=False)  # the same, so that what is damaged is told once
    found = recommendations(
        opened, budget=budget, target_psnr=target_psnr, max_seconds=max_seconds, metric=metric, models=names,
        where=split_words(where),
    )  # fmt: skip
    rows = opened.rows()
    left = [
        untried(opened, [row for row in rows if row.model == one.model], budget,
                raced=budget is not None and raced(folder, one.model, budget))
        for one, _ in found
    ]  # fmt: skip
    if as_json:
        answers = [
            asdict(one) | {"commands": commands, "untried": line}
            for (one, commands), line in zip(found, left, strict=True)
        ]
        print(json.dumps(answers, indent=2))
        return
    for (one, commands), line in zip(found, left, strict=True):
        text = "\n".join([str(one), *(f"  {command}" for command in commands), *filter(None, [line])])
        console.print(text, highlight=False, markup=False, soft_wrap=True)
