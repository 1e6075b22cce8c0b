"""A whole sweep on the terminal: cells with progress, then the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastsample.bench.cells import Cell, plan_cells
from fastsample.bench.metrics.error import Metric, parse_metric
from fastsample.bench.metrics.features import (
    EMBEDDED,
    INCEPTION,
    REFERENCES,
    Extractor,
    MetricUnavailable,
    open_extractor,
)
from fastsample.bench.metrics.frechet import TooFewSamples, check_count
from fastsample.bench.refusals import metric_refusal
from fastsample.bench.request import Request, RequestError
from fastsample.bench.run import CellError, Runner
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.datasets.errors import told
from fastsample.datasets.names import nearest
from fastsample.results.overview import overview, to_rich
from fastsample.results.store import Row, Store, frame_of

__all__ = ["run_sweep"]


def run_sweep(request: Request, console: Console, inception_weights: Path | None = None) -> list[str]:
    """Compute and show the cells of a request; returns the messages of cells that failed.

    A failure is of its cell: the others are computed.

    Raises:
        ValueError: for a request that names something unknown or cannot be carried out.
    """
    device = choose_device(request.device)
    check_precision(request.precision, device)
    wanted = {text: parse_metric(text, EMBEDDED) for text in request.metrics}
    for metric in wanted.values():
        if metric.extractor and metric.extractor not in REFERENCES:
            raise RequestError(nearest(metric.extractor, list(REFERENCES), "feature extractor"))
    planned, skipped = plan_cells(request, tuple(request.metrics), console)
    if inception_weights and not any(metric.extractor == INCEPTION for metric in wanted.values()):
        raise RequestError("--inception-weights is for fid and fid-inf, and neither is asked for")
    metrics, extractors, reasons = _available(planned, wanted, device, inception_weights)
    for (what, reason), kinds in reasons.items():
        which = f"{' and '.join(kinds)}{f' for {what}' if what else ''}"
        console.print(f"[yellow]without {escape(which)}:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    had = [tuple(text for text, one in metrics.items() if not metric_refusal(one, cell)[1]) for cell in planned]
    # What a cell has of them is a part of its identity: a metric that is to be had another day makes another row.
    cells = [replace(cell, metrics=texts) for cell, texts in zip(planned, had, strict=True) if texts]
    if not cells:
        raise RequestError(f"no metric is left: {next(iter(reasons))[1]}")
    failures: list[str] = []

    def fail(what: str) -> None:
        failures.append(what)
        console.print(f"[bold red]no row:[/] {escape(what)}", highlight=False, soft_wrap=True)

    for cell, texts in zip(planned, had, strict=True):
        if not texts:
            fail(f"{cell}: none of the metrics asked for says anything about it")
    for skip in skipped:
        if skip.failed:
            fail(f"{skip.what}: {skip.reason}")
        else:
            console.print(f"[yellow]skipped[/] {escape(f'{skip.what}: {skip.reason}')}", highlight=False)
    store = Store(request.out)
    rows: list[Row] = []
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

        runner = Runner(store, Sampler(device), request.batch_size, list(metrics.values()), extractors, advance)
        for number, cell in enumerate(cells, 1):
            progress.update(task, description=f"cell {number}/{len(cells)} {_short(cell)}")
            try:
                rows.append(runner.run(cell))
            except CellError as error:
                fail(told(error))
            except Exception as error:  # of a user's solver, out of memory, a full disk, ...
                fail(f"{cell}: {told(error)}")
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
    cells: list[Cell], wanted: dict[str, Metric], device: torch.device, weights: Path | None
) -> tuple[dict[str, Metric], dict[str, Extractor], dict[tuple[str, str], list[str]]]:
    """The metrics that can be had here, their extractors, and by (of what, why) the kinds of those that cannot."""
    metrics: dict[str, Metric] = {}
    extractors: dict[str, Extractor] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    for text, metric in wanted.items():
        refusals = dict.fromkeys(metric_refusal(metric, cell) for cell in cells)
        for of_what, why in refusals:
            if why:
                reasons.setdefault((of_what, why), []).append(metric.kind)
        if not any(not why for _, why in refusals):
            continue
        try:
            if metric.extractor and metric.extractor not in extractors:
                found = extractors[metric.extractor] = open_extractor(metric.extractor, device, weights)
                if found.weights:
                    why = f"the weights are not the published file; distances in them are fd[{found.identity}]"
                    reasons.setdefault(("", why), []).append("fid")
            if metric.extractor:
                metric = replace(metric, weights=extractors[metric.extractor].weights)
            if metric.kind.endswith("-inf"):
                check_count(cells[0].samples, len(extractors[metric.extractor].reference.mu))
            if metric.kind in ("kid", "precision", "recall"):
                extractors[metric.extractor].real_images  # noqa: B018 - raises where they are not here
        except (MetricUnavailable, TooFewSamples) as error:
            reasons.setdefault(("", str(error)), []).append(metric.kind)
            continue
        metrics[text] = metric
    return metrics, extractors, reasons


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
    for row in rows:
        if row.nfe_max is not None:
            lines.append(
                f"{row.title} on {row.model}, seed {row.seed}: {row.nfe_mean:.1f} evaluations a sample in the mean, "
                f"{row.nfe_max} at most."
            )
    lines.append("overhead: solver arithmetic and metrics on top of the network's own time.")
    lines.append(f"{len(rows)} rows in {out}/rows.csv and rows.parquet; `fastsample show {out}` prints them again.")
    return lines
