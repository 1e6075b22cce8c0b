"""Commands that run solvers: a sweep, a picture of samples, the proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fastsample.bench.cli.about import completion
from fastsample.bench.cli.hire import RayWord, hire
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
    budget_option,
    budgets,
    console,
    errors,
    kept,
    path,
    solver_words,
    split_words,
    weights_by_name,
    writable,
)  # fmt: skip
from fastsample.results.metrics import DEFAULT, METRICS

__all__ = ["app"]

app = typer.Typer()

# What `bench` and `sample` share of a protocol.
_GUIDANCE = typer.Option(help=rf"{GUIDANCE} \[default: 0]")
_CFG = typer.Option(help="The same as papers write it: S = 1 + weight.")
_GUIDE, _INTERVAL = typer.Option(help=GUIDE), typer.Option(help=INTERVAL)
_PROMPTS, _NEGATIVE = typer.Option(help=rf"{PROMPTS} \[default: 64 of the package]"), typer.Option(help=NEGATIVE)
_EMBEDDED, _SIZE = typer.Option(help=rf"{EMBEDDED} \[default: 3.5]"), typer.Option(help=SIZE)
_TILING = typer.Option("--tiling", help="Decode latents in overlapping tiles, which takes less memory.")
_T_END = typer.Option(help="Time of the model's path to stop at, such as 1e-4.")
_SIGMA_MIN = typer.Option(help="Noise-to-signal ratio to stop at instead.")
_SIGMA_MAX = typer.Option(help="Noise-to-signal ratio to start at.")
_THRESHOLD = typer.Option(help=r"Dynamic thresholding: QUANTILE\[,MAX], such as 0.995.")
_CHECKPOINT = typer.Option(help="A file with the weights of a public model, instead of a download.", parser=path)


@app.command(
    cls=RayWord,
    epilog="""
[bold]Examples[/]

fastsample bench --solver scire --nfe 10

fastsample bench --model cifar10-tiny-flow --solver flow-solver:order=3,heun,euler --nfe 5,10,20 --samples 1000

fastsample bench --config sweep.toml --device cuda --out results-paper

fastsample bench --solver scire,unipc --nfe 5,10,20 --samples 50000 --plan

fastsample bench --solver scire,unipc --nfe 5,10,20 --samples 50000 --workers 4

fastsample bench --protocol diff-sampler --model edm-cifar10-uncond-vp --solver unipc --nfe 10 --device cuda
""",
)
def bench(
    model: Annotated[
        Words,
        typer.Option(
            help=rf"{MODEL} Several make rows of each. \[default: cifar10-tiny-vp]", autocompletion=completion.models
        ),
    ] = None,
    solver: Annotated[
        Words,
        typer.Option(
            help=r"Solvers, each NAME \[:OPTION=VALUE,...] \[@GRID] in one word. \[default: scire]",
            autocompletion=completion.solvers,
        ),
    ] = None,
    nfe: Annotated[Words, typer.Option(help=r"Function evaluations to spend. \[default: 10]")] = None,
    grid: Annotated[
        Words, typer.Option(help=r"Time grids. \[default: each solver's own]", autocompletion=completion.grids)
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Samples, uint8 rule, interval, threshold, reference as a paper has them: `list protocols`."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help=r"Images per cell. \[default: 256]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=r"Images per network call. \[default: 64; on a GPU what fits]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help=r"Seed of the noise. \[default: 0]")] = None,
    seeds: Annotated[int | None, typer.Option(help=r"Repeat each cell with this many seeds. \[default: 1]")] = None,
    device: Annotated[str | None, typer.Option(help=r"auto, cpu, cuda, ... \[default: auto]")] = None,
    precision: Annotated[
        str | None, typer.Option(help=r"float64, float32, tf32, bf16 or fp16. \[default: float32]")
    ] = None,
    guidance: Annotated[float | None, _GUIDANCE] = None,
    cfg: Annotated[float | None, _CFG] = None,
    guide: Annotated[str | None, _GUIDE] = None,
    guidance_interval: Annotated[str | None, _INTERVAL] = None,
    prompts: Annotated[str | None, _PROMPTS] = None,
    negative: Annotated[str | None, _NEGATIVE] = None,
    embedded_guidance: Annotated[float | None, _EMBEDDED] = None,
    size: Annotated[str | None, _SIZE] = None,
    tiling: Annotated[bool | None, _TILING] = None,
    classifier_scale: Annotated[
        float | None, typer.Option(help=r"Scale of guidance by the model's own classifier. \[default: 0]")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help=r"Classes of conditional models: random, balanced, or such as 3 or 3,7 in turn. \[default: random]"
        ),
    ] = None,
    checkpoint: Annotated[Path | None, _CHECKPOINT] = None,
    t_end: Annotated[float | None, _T_END] = None,
    sigma_min: Annotated[float | None, _SIGMA_MIN] = None,
    sigma_max: Annotated[float | None, _SIGMA_MAX] = None,
    threshold: Annotated[str | None, _THRESHOLD] = None,
    uint8: Annotated[
        str | None, typer.Option(help=r"How images become uint8: round or floor. \[default: round]")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help=r"Reference set instead of the model's own: an id of `list references`, FILE, or "
            r"folder:PATH\[@PREPROCESSING]."
        ),
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
        typer.Option(help=rf"{', '.join(METRICS)}. \[default: {','.join(DEFAULT)}]", autocompletion=completion.metrics),
    ] = None,
    psnr_samples: Annotated[
        int | None, typer.Option(help=r"Of them PSNR and truncation are of the first so many. \[default: 1024]")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="features or images: what stays in the store, for other metrics and more samples."),
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile", help="Fuse the network: a minute once, for sweeps of ten and more.")
    ] = None,
    save_samples: Annotated[
        str | None, typer.Option(help="png or npz: write the images of each cell to STORE/images.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it will cost, and compute nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option(help=r"Folder of the store. \[default: results-store]", parser=path)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with the same keys; the command line wins.", parser=path)
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="Inception-v3 weights of torch-fidelity, for fid.", parser=path)
    ] = None,
    extractor_weights: Annotated[Words, typer.Option(help=EXTRACTOR_WEIGHTS)] = None,
    workers: Annotated[
        int | None, typer.Option(help=r"Processes, one for each device. \[default: this process alone]", min=1)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Workers on a Ray cluster: its address, or nothing for the one at hand.", metavar="[ADDRESS]"
        ),
    ] = None,
) -> None:
    """Sample every (model, solver, grid, NFE), measure, and keep one row per cell.

    Finished cells are never computed again; an interrupted run goes on where it stopped.
    """
    from fastsample.bench.request import read_request
    from fastsample.bench.sweep import run_sweep

    request = read_request(
        config, model=split_words(model), solver=solver_words(solver), nfe=budgets(nfe) or None,
        grid=solver_words(grid), protocol=protocol, samples=samples,
        batch_size=batch_size, seed=seed, seeds=seeds, device=device, precision=precision, guidance=guidance,
        classifier_scale=classifier_scale, guide=guide, guidance_interval=guidance_interval,
        labels=labels, checkpoint=checkpoint, reference_steps=reference_steps, transfer=transfer, cfg=cfg,
        t_end=t_end, sigma_min=sigma_min, sigma_max=sigma_max, threshold=threshold, uint8=uint8, reference=reference,
        metrics=split_words(metrics), psnr_samples=psnr_samples, keep=keep, compiled=compiled,
        save_samples=save_samples, out=out,
        prompts=prompts, negative=negative, embedded_guidance=embedded_guidance, size=size, tiling=tiling,
    )  # fmt: skip
    with kept("finished cells and parts are kept, the same command goes on from there"):
        weights = weights_by_name(extractor_weights, inception_weights)
        failures = run_sweep(request, console, weights, hire(workers, ray), plan=plan)
    for failure in failures:
        errors.print(f"[bold red]failed:[/] {escape(failure)}", highlight=False, soft_wrap=True)
    if failures:
        raise typer.Exit(1)


@app.command(epilog="Example: fastsample sample --solver scire:order=3 --nfe 12 -o grid.png")
def sample(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="PNG to write, or .npy: the samples as an array.", parser=path, callback=writable
        ),
    ] = Path("samples.png"),
    model: Annotated[str, typer.Option(help=MODEL, autocompletion=completion.models)] = "cifar10-tiny-vp",
    solver: Annotated[
        str, typer.Option(help=r"NAME \[:OPTION=VALUE,...] \[@GRID] in one word", autocompletion=completion.solvers)
    ] = "scire",
    nfe: Annotated[int, budget_option("Function evaluations to spend.")] = 10,
    grid: Annotated[
        str | None, typer.Option(help=r"Time grid. \[default: the solver's own]", autocompletion=completion.grids)
    ] = None,
    samples: Annotated[int, typer.Option(help="Images in the grid.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    guidance: Annotated[float | None, _GUIDANCE] = None,
    cfg: Annotated[float | None, _CFG] = None,
    guide: Annotated[str | None, _GUIDE] = None,
    guidance_interval: Annotated[str | None, _INTERVAL] = None,
    prompts: Annotated[str | None, _PROMPTS] = None,
    negative: Annotated[str | None, _NEGATIVE] = None,
    embedded_guidance: Annotated[float | None, _EMBEDDED] = None,
    size: Annotated[str | None, _SIZE] = None,
    tiling: Annotated[bool | None, _TILING] = None,
    classifier_scale: Annotated[float, typer.Option(help="Scale of guidance by the model's own classifier.")] = 0.0,
    t_end: Annotated[float | None, _T_END] = None,
    sigma_min: Annotated[float | None, _SIGMA_MIN] = None,
    sigma_max: Annotated[float | None, _SIGMA_MAX] = None,
    threshold: Annotated[str | None, _THRESHOLD] = None,
    labels: Annotated[
        str, typer.Option(help="Classes of conditional models: random, balanced, or such as 3 or 3,7 in turn.")
    ] = "random",
    checkpoint: Annotated[Path | None, _CHECKPOINT] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Take another model's learned table.")] = False,
    scale: Annotated[
        int, typer.Option(min=0, max=64, help=r"Dots of a pixel's side. \[default: to 400 dots of width]")
    ] = 0,
) -> None:
    """Draw samples and write them as one image grid, or as an array."""
    from fastsample.bench.drawing import draw
    from fastsample.bench.request import read_request

    request = read_request(
        None, model=(model,), solver=solver_words([solver]), nfe=nfe, grid=grid, samples=samples, seed=seed,
        device=device,
        guidance=guidance, classifier_scale=classifier_scale, guide=guide, guidance_interval=guidance_interval,
        labels=labels, checkpoint=checkpoint, transfer=transfer,
        cfg=cfg, t_end=t_end, sigma_min=sigma_min, sigma_max=sigma_max, threshold=threshold,
        prompts=prompts, negative=negative, embedded_guidance=embedded_guidance, size=size, tiling=tiling,
    )  # fmt: skip
    console.print(draw(request, out, console, scale))


@app.command(epilog="Example: fastsample verify --solver scire,dpmpp-2m --picture orders.png")
def verify(
    solver: Annotated[
        Words, typer.Option(help=r"Solvers to verify. \[default: all]", autocompletion=completion.solvers)
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help=r"Folder of golden files. \[default: tests/data/golden of a clone]", parser=path)
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of error against NFE to write.", parser=path, callback=writable)
    ] = None,
) -> None:
    """Prove every solver on exact mixtures: order of convergence, evaluations made, table, parity."""
    from fastsample.bench.cli.verify import run_verification

    if not run_verification(split_words(solver), golden, picture, console):
        raise typer.Exit(1)
