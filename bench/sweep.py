"""A whole sweep on the terminal: cells with progress, then the table."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastsample.bench.bias import TooFewSamples, check_count
from fastsample.bench.cells import Cell, plan_cells
from fastsample.bench.extractors import refusal
from fastsample.bench.features import EMBEDDED, Extractor, MetricUnavailable, open_extractor
from fastsample.bench.metrics import Metric, parse_metric
from fastsample.bench.request import Request
from fastsample.bench.run import CellError, Runner
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.bench.trajectories import undefined
from fastsample.results.store import Row, Store, frame_of
from fastsample.results.tables import overview, to_rich

__all__ = ["run_sweep"]


def run_sweep(request: Request, console: Console, inception_weights: Path | None = None) -> list[str]:
    """Compute and show the cells of a request; returns the messages of cells that failed.

    Raises:
        ValueError: for a request that names something unknown or cannot be carried out.
    """
    device = choose_device(request.device)
    wanted = [parse_metric(text, EMBEDDED) for text in request.metrics]
    cells, skipped = plan_cells(request, tuple(request.metrics), console)
    store = Store(request.out)
    metrics, extractors = _available(
        wanted, console, device, inception_weights, request.samples, any(len(c.model.shape) == 3 for c in cells)
    )
    for model in {cell.model.id: cell.model for cell in cells}.values():
        for name in extractors:
            if len(model.image_shape) == 3 and (reason := refusal(name, model.image_shape)):
                console.print(f"[yellow]without {name} for {model.id}:[/] {reason}", highlight=False, soft_wrap=True)
    bends = [metric.kind for metric in metrics if metric.kind in ("curvature", "straightness")]
    for name, plan in {cell.plan.solver.name: cell.plan for cell in cells}.items():
        if bends and (reason := undefined(plan)):
            console.print(f"[yellow]without {' and '.join(bends)} for {name}:[/] {reason}", highlight=False)
    for skip in skipped:
        console.print(f"[yellow]skipped[/] {skip.what}: {skip.reason}", highlight=False)
    rows: list[Row] = []
    failures: list[str] = []
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("images  {task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(cell.samples for cell in cells), rate="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[task].finished_speed or progress.tasks[task].speed
            progress.update(task, rate=f"{speed:.0f}/s" if speed else "")

        runner = Runner(store, Sampler(device), request.batch_size, metrics, extractors, advance)
        for number, cell in enumerate(cells, 1):
            progress.update(task, description=f"cell {number}/{len(cells)} {_short(cell)}")
            try:
                rows.append(runner.run(cell))
            except CellError as error:
                failures.append(str(error))
                console.print(f"[bold red]failed:[/] {escape(str(error))}", highlight=False)
            except KeyboardInterrupt:
                store.summarise()
                raise
    store.summarise()
    if rows:
        console.print(to_rich(overview(frame_of(rows))))
        for line in _footnotes(rows, request.out):
            console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    return failures


def _available(
    wanted: list[Metric], console: Console, device: torch.device, weights: Path | None, samples: int, images: bool
) -> tuple[list[Metric], dict[str, Extractor]]:
    """The metrics that can be computed here with their extractors; a line for each that cannot."""
    extractors: dict[str, Extractor] = {}
    metrics: list[Metric] = []
    for metric in wanted:
        if metric.extractor and not images:
            continue
        try:
            if metric.extractor and metric.extractor not in extractors:
                extractors[metric.extractor] = open_extractor(metric.extractor, device, weights)
            if metric.kind.endswith("-inf"):
                check_count(samples, len(extractors[metric.extractor].reference.mu))
        except (MetricUnavailable, TooFewSamples) as error:
            console.print(f"[yellow]without {metric.kind}:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            continue
        metrics.append(metric)
    return metrics, extractors


def _short(cell: Cell) -> str:
    return f"{cell.model.id} {cell.plan.solver.name} NFE {cell.plan.nfe}"


def _footnotes(rows: list[Row], out: Path) -> list[str]:
    lines = []
    bounds = {row.model: row.metrics["psnr_reference"] for row in rows if "psnr_reference" in row.metrics}
    for model, bound in bounds.items():
        row = next(row for row in rows if row.model == model)
        what = f"PSNR of {model}: mean" if "psnr" in row.metrics else f"Truncation error of {model}: root mean square"
        lines.append(
            f"{what} over samples against {row.protocol['psnr reference']}; the reference agrees with itself at half "
            f"the steps to {bound:.1f} dB, and a PSNR near that says only 'at least'."
        )
    names = {name for row in rows for name in row.metrics if name.startswith("fd[")}
    if names:
        lines.append(
            "fd[...]@N is a Frechet distance in the features of the network named, from N samples; it is no FID."
        )
    lines.append("overhead: solver arithmetic and metrics on top of the network's own time.")
    lines.append(f"{len(rows)} rows in {out}/rows.csv and rows.parquet; `fastsample show {out}` prints them again.")
    return lines
