"""`fastsample train`: one trainer, by what is coupled with what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.words import console, finite, kept, path, told
from fastsample.bench.limits import MOST_BATCH, SEEDS

__all__ = ["app"]

app = typer.Typer()
train = typer.Typer(no_args_is_help=True, help="Train flows, straighter flows and the embedded classifiers.")
app.add_typer(train, name="train")

_Recipe = Annotated[str, typer.Argument(help="Recipe (`fastsample list recipes`), or FILE.toml.")]
_Out = Annotated[Path | None, typer.Option(help=r"Folder of the run. \[default: runs/RECIPE-SEED]", parser=path)]
_Dataset = Annotated[
    str | None, typer.Option(help=r"Data set. \[default: the recipe's]", autocompletion=completion.datasets)
]
_Data = Annotated[
    Path | None,
    typer.Option(help=r"Where its training images are. \[default: the package, or FASTSAMPLE_HOME]", parser=path),
]
_Images = Annotated[int | None, typer.Option(min=1, max=10**12, help="Images to see, instead of the recipe's number.")]
_Batch = Annotated[int | None, typer.Option(min=1, max=MOST_BATCH, help="Batch, instead of the recipe's.")]
_Accumulate = Annotated[
    int | None, typer.Option(min=1, max=MOST_BATCH, help="Micro-batches of a batch, instead of the recipe's number.")
]
_Precision = Annotated[str | None, typer.Option(help="auto, float32, bf16 or fp16, instead of the recipe's.")]
_Seed = Annotated[int | None, typer.Option(min=0, max=SEEDS - 1, help=r"Seed. \[default: the recipe's]")]
_Start = Annotated[
    str | None, typer.Option(help='Model whose weights to begin with, instead of the recipe\'s; "" for random ones.')
]
_Minutes = Annotated[
    float | None,
    typer.Option(min=0.0, callback=finite, help="Stop cleanly after this time; the same command goes on."),
]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
_Compile = Annotated[
    bool, typer.Option("--compile", help="Fuse the network with torch.compile; resume with the same choice.")
]


@train.command(
    epilog="""
[bold]Examples[/]

fastsample train flow gauss8-flow

fastsample train flow cifar10-tiny-flow --max-minutes 10

torchrun --nproc-per-node 4 -m fastsample.bench train flow my-recipe.toml --data data --device cuda
"""
)
def flow(
    recipe: _Recipe, out: _Out = None, dataset: _Dataset = None, data: _Data = None, images: _Images = None,
    batch: _Batch = None, accumulate: _Accumulate = None, precision: _Precision = None, seed: _Seed = None,
    start: _Start = None, max_minutes: _Minutes = None, device: _Device = "auto", compile_network: _Compile = False,
) -> None:  # fmt: skip
    """A flow or diffusion model: data and noise drawn independently, or matched in each batch."""
    changes = dict(images=images, batch=batch, accumulate=accumulate, precision=precision, seed=seed, start=start)
    _run("flow", recipe, out, changes, dataset, data, None, max_minutes, device, compile_network)


@train.command(
    epilog="""
[bold]Examples[/]

fastsample train curvature gauss8-curvature

fastsample train curvature cifar10-tiny-curvature
"""
)
def curvature(
    recipe: _Recipe, out: _Out = None, dataset: _Dataset = None, data: _Data = None, images: _Images = None,
    batch: _Batch = None, accumulate: _Accumulate = None, precision: _Precision = None, seed: _Seed = None,
    start: _Start = None, max_minutes: _Minutes = None, device: _Device = "auto", compile_network: _Compile = False,
) -> None:  # fmt: skip
    """A flow with a learned coupling, whose trajectories bend less (fast-ode, arXiv 2301.12003)."""
    changes = dict(images=images, batch=batch, accumulate=accumulate, precision=precision, seed=seed, start=start)
    _run("curvature", recipe, out, changes, dataset, data, None, max_minutes, device, compile_network)


@train.command(
    epilog="""
[bold]Examples[/]

fastsample train reflow cifar10-tiny-rfpp

fastsample train reflow cifar10-tiny-reflow --pairs runs/pairs --seed 1

fastsample train reflow gauss8-reflow --teacher runs/gauss8-flow-0/gauss8-flow.safetensors
"""
)
def reflow(
    recipe: _Recipe, out: _Out = None, dataset: _Dataset = None, data: _Data = None, images: _Images = None,
    batch: _Batch = None, accumulate: _Accumulate = None, precision: _Precision = None, seed: _Seed = None,
    start: _Start = None,
    teacher: Annotated[
        str | None, typer.Option(help="Model that makes the pairs and lends its weights, instead of the recipe's.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help=r"Folder of the teacher's pairs. \[default: OUT/pairs]", parser=path)
    ] = None,
    max_minutes: _Minutes = None, device: _Device = "auto", compile_network: _Compile = False,
) -> None:  # fmt: skip
    """A rectified flow, or its one-step distillation, from a teacher's pairs, made first (rfpp, arXiv 2405.20320)."""
    changes = dict(images=images, batch=batch, accumulate=accumulate, precision=precision, seed=seed, start=start)
    changes |= {"coupling.teacher": teacher, "start": teacher if start is None else start}
    _run("reflow", recipe, out, changes, dataset, data, pairs, max_minutes, device, compile_network)


@train.command(epilog="Example: fastsample train classifier cifar10-resnet")
def classifier(
    name: Annotated[str, typer.Argument(help="cifar10-resnet (metrics) or cifar10-conv (losses).")],
    out: _Out = None, dataset: _Dataset = None, data: _Data = None, device: _Device = "auto",
) -> None:  # fmt: skip
    """An embedded classifier, whose features metrics and losses use."""
    from fastsample.bench.learning.training import train_features
    from fastsample.bench.sampling import choose_device
    from fastsample.results.storage.writable import check_folder

    folder = out or Path("runs") / name
    check_folder(folder)
    with kept("nothing is kept of it, the same command begins again"), told(f"training {name}"):
        line = train_features(name, folder, dataset=dataset, data=data, device=str(choose_device(device)))
    console.print(line)


def _run(
    kind: str, name: str, out: Path | None, changes: Mapping[str, object], dataset: str | None, data: Path | None,
    pairs: Path | None, max_minutes: float | None, device: str, compile_network: bool,
) -> None:  # fmt: skip
    from fastsample.bench.jobs.stages import Stages
    from fastsample.bench.learning.training import train_recipe
    from fastsample.bench.sampling import choose_device
    from fastsample.models.training.recipe import changed, command_of, read_recipe
    from fastsample.results.storage.writable import check_folder

    recipe = changed(read_recipe(name), changes)
    if command_of(recipe) != kind:
        raise ValueError(f"{recipe.id} is a recipe for `fastsample train {command_of(recipe)}`")
    folder = out or Path("runs") / f"{recipe.id}-{recipe.seed}"
    check_folder(folder)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    stages = Stages(console if first else Console(quiet=True), f"training {recipe.id}")
    with kept(f"what is finished is kept in {folder}, the same command goes on from there"), stages:
        run = train_recipe(
            recipe, folder, dataset=dataset, data=data, pairs=pairs, max_minutes=max_minutes,
            device=str(choose_device(device)), compile_network=compile_network, console=console,
            tell=stages.detail,
        )  # fmt: skip
    if not first:
        return
    state = "finished" if run.finished else "stopped; the same command goes on"
    console.print(f"{run.checkpoint}: {run.images_seen} of {recipe.images} images, {state}", soft_wrap=True)
