"""The command that learns solvers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import (
    EMBEDDED,
    EXTRACTOR_WEIGHTS,
    GUIDANCE,
    GUIDE,
    INTERVAL,
    MODEL,
    NEGATIVE,
    PROMPTS,
    SIZE,
    Words,
    budgets,
    console,
    finite,
    kept,
    told,
    weights_by_name,
)
from fastsample.bench.limits import MOST_BATCH, SEEDS, TABLE_NFE

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog="""
[bold]Examples[/]

fastsample distill bns --model cifar10-tiny-flow --nfe 4

fastsample distill times --model cifar10-tiny-vp --nfe 8 --initial dpmpp-2m

fastsample distill gs --model cifar10-tiny-flow --nfe 5 --evaluations 100000

fastsample distill ld3 --model cifar10-tiny-vp --nfe 5 --loss lpips[cifar10-resnet] --soft

fastsample distill rk2-bespoke --model gmm2d-flow --nfe 8

fastsample bench --model cifar10-tiny-flow --solver bns,dpmpp-2m --nfe 4,8
"""
)
def distill(
    kind: Annotated[
        str, typer.Argument(help="bns, bns-first, gs, ld3, s4s, s4s-alt, dss, rk1-bespoke, rk2-bespoke or times.")
    ],
    model: Annotated[str, typer.Option(help=MODEL, autocompletion=completion.models)] = "cifar10-tiny-vp",
    nfe: Annotated[
        Words, typer.Option(help=r"Function evaluations; one solver is learned for each. \[default: 8]")
    ] = None,
    initial: Annotated[
        str, typer.Option(help=r"SOLVER \[:OPTION=VALUE,...] \[@GRID] in one word to start from; auto tries several.")
    ] = "auto",
    sigma0: Annotated[
        float,
        typer.Option(min=0.01, max=1000, callback=finite, help="Noise scale of the initial solver (sigma_0 of BNS)."),
    ] = 1.0,
    guidance: Annotated[float, typer.Option(callback=finite, help=f"{GUIDANCE} The table is for this one.")] = 0.0,
    guide: Annotated[str | None, typer.Option(help=GUIDE)] = None,
    guidance_interval: Annotated[str | None, typer.Option(help=INTERVAL)] = None,
    prompts: Annotated[str | None, typer.Option(help=PROMPTS)] = None,
    negative: Annotated[str | None, typer.Option(help=NEGATIVE)] = None,
    embedded_guidance: Annotated[float | None, typer.Option(callback=finite, help=EMBEDDED)] = None,
    size: Annotated[str | None, typer.Option(help=SIZE)] = None,
    train: Annotated[int, typer.Option(min=32, max=100_000, help="Training pairs.")] = 520,
    validation: Annotated[int, typer.Option(min=32, max=100_000, help="Validation pairs.")] = 128,
    steps: Annotated[int, typer.Option(min=1, max=10_000, help="Gauss-Newton steps at most.")] = 24,
    minutes: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="No step begins after this time, for each NFE.")
    ] = 10.0,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Samples per network call.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Seed of the draws of training pairs.")] = 0,
    loss: Annotated[
        str,
        typer.Option(help=r"psnr (its log error), mse, lpips, or lpips\[cifar10-resnet], its form. \[default: psnr]"),
    ] = "",
    soft: Annotated[
        bool, typer.Option("--soft", help="The student may move its noise a little, as in LD3 and S4S.")
    ] = False,
    evaluations: Annotated[
        int, typer.Option(min=0, help="Network evaluations (per sample) at most, for each NFE; 0 for no end.")
    ] = 0,
    extractor_weights: Annotated[Words, typer.Option(help=EXTRACTOR_WEIGHTS)] = None,
    again: Annotated[bool, typer.Option("--again", help="Learn also what is learned already.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Learn a solver for a model at each NFE; `bench --solver KIND` finds it by name.

    An interrupted run goes on from its last step, and a finished one is not learned again.
    """
    from fastsample.bench.learning.distillation import distill as learn
    from fastsample.bench.learning.losses import loss_named
    from fastsample.bench.protocol import check_guidance, open_under
    from fastsample.bench.request import read_request
    from fastsample.bench.sampling import Sampler, choose_device
    from fastsample.results.forms.screen import FittedTable
    from fastsample.solvers.learned.kinds import kind_named
    from fastsample.solvers.learned.shelf import add_table, place_of

    learned = kind_named(kind)
    wanted = budgets(nfe, TABLE_NFE) or (8,)
    asked = read_request(
        None, guidance=guidance, guide=guide, guidance_interval=guidance_interval, prompts=prompts, negative=negative,
        embedded_guidance=embedded_guidance, size=size,
    )  # fmt: skip
    found = open_under(model, asked, console)
    check_guidance(found, asked)
    where = choose_device(device)
    wished = loss_named(loss, found, where, weights_by_name(extractor_weights))
    columns = ("NFE", "from", "before [dB]", "train [dB]", "validation [dB]", "steps", "evaluations", "time", "file")
    table = FittedTable(*map(escape, columns), title=f"{learned.title} for {found.id}")
    convention = ""
    stopped = "finished tables are kept, the same command goes on from the last step"
    with kept(stopped), told(f"{found.id} {kind}") as tell:
        files = learn(
            kind, found, wanted, Sampler(where), guidance=guidance, train=train,
            validation=validation, batch=batch_size, initial=initial, sigma0=sigma0, steps=steps, minutes=minutes,
            seed=seed, loss=wished, soft=soft, evaluations=evaluations,
            again=again or bool(extractor_weights),  # files of one name may be others
            progress=lambda line: tell(f"{found.id} {line}"),
        )  # fmt: skip
        for file, new in files:
            target, record = add_table(file) if new else place_of(file), file.training
            assert record is not None
            convention = record.convention
            table.add_row(
                str(file.nfe), record.initial, f"{record.initial_psnr:.2f}", f"{record.train_psnr:.2f}",
                f"{record.validation_psnr:.2f}", str(record.iterations), f"{record.evaluations:,}",
                f"{record.seconds:.0f} s", target.name,
            )  # fmt: skip
            if not new:
                line = f"{kind} at NFE {file.nfe} is learned already: {target}; --again learns it anew"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                continue
            console.print(
                f"NFE {file.nfe}: {record.initial_psnr:.2f} -> {record.validation_psnr:.2f} dB, "
                f"{record.free_parameters} free numbers; {target}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    console.print(table)
    console.print(f"PSNR: mean over pairs, not clamped. {convention}.", style="dim", highlight=False)
