"""A whole sweep on the terminal: cells with progress, then the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import fastsample.bench.metrics.measures  # noqa: F401 - registers them
from fastsample.bench.cells import Cell, plan_cells
from fastsample.bench.metrics.extractors import known_extractors
from fastsample.bench.metrics.features import EMBEDDED, INCEPTION, MetricUnavailable
from fastsample.bench.metrics.measure import MEASURES, Measure, Tools
from fastsample.bench.request import Request, RequestError
from fastsample.bench.run import CellError, Runner
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.datasets.errors import told
from fastsample.datasets.names import nearest
from fastsample.results.metrics import METRICS, Asked, parse_metric, sentences
from fastsample.results.overview import overview, to_rich
from fastsample.results.row import Row, frame_of
from fastsample.results.store import Store

__all__ = ["run_sweep"]


def run_sweep(request: Request, console: Console, weights: Mapping[str, Path] | None = None) -> list[str]:
    """Compute and show the cells of a request; returns the messages of cells that failed.

    A failure is of its cell: the others are computed.

    Args:
        weights: files of the weights of extractors by name; of others they are looked for where they belong.

    Raises:
        ValueError: for a request that names something unknown or cannot be carried out.
    """
    device = choose_device(request.device)
    check_precision(request.precision, device)
    wanted = {text: parse_metric(text, EMBEDDED) for text in request.metrics}
    for asked in wanted.values():
        if asked.extractor and asked.extractor not in known_extractors():
            raise RequestError(nearest(asked.extractor, known_extractors(), "feature extractor"))
    planned, skipped = plan_cells(request, tuple(request.metrics), console)
    known = {name for asked in wanted.values() for name in (asked.extractor, asked.metric.kind)}
    for name in {*(weights or ())} - known:
        kinds = " and ".join(kind for kind, metric in METRICS.items() if metric.extractor == INCEPTION)
        if name == INCEPTION:
            raise RequestError(f"--inception-weights is for {kinds}, and neither is asked for")
        raise RequestError(f"--extractor-weights: no metric in the features of {name} is asked for")
    tools = Tools(Sampler(device), weights or {}, console)
    measures, reasons, notes = _available(planned, wanted, tools)
    for note in dict.fromkeys(notes):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    for (what, reason), of in reasons.items():
        which = f"{' and '.join(dict.fromkeys(of))}{f' for {what}' if what else ''}"
        console.print(f"[yellow]without {escape(which)}:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    had = [tuple(text for text, one in measures.items() if not one.why_not(cell)[1]) for cell in planned]
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

        runner = Runner(store, tools, request.batch_size, list(measures.values()), advance)
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
    cells: list[Cell], wanted: dict[str, Asked], tools: Tools
) -> tuple[dict[str, Measure], dict[tuple[str, str], list[str]], list[str]]:
    """The measures that can be had here, by (of what, why) the metrics that cannot, and notes on the others."""
    measures: dict[str, Measure] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    notes: list[str] = []
    for text, asked in wanted.items():
        measure = MEASURES[asked.metric.kind](asked, tools)
        refusals = dict.fromkeys(measure.why_not(cell) for cell in cells)
        if ("", "") in refusals:
            try:
                if note := measure.open():
                    notes.append(note)
                refusals |= dict.fromkeys(measure.why_not(cell) for cell in cells)  # what only the opened one knows
                measures[text] = measure
            except MetricUnavailable as error:
                refusals["", str(error)] = None
        for of_what, why in refusals:
            if why:
                reasons.setdefault((of_what, why), []).append(text)
    return measures, reasons, notes


def _short(cell: Cell) -> str:
    return f"{cell.model.id} {cell.plan.solver.name} NFE {cell.plan.nfe}"


def _footnotes(rows: list[Row], out: Path) -> list[str]:
    lines = sentences(frame_of(rows), list(dict.fromkeys(name for row in rows for name in row.metrics)))
    for row in rows:
        if row.nfe_max is not None:
            lines.append(
                f"{row.title} on {row.model}, seed {row.seed}: {row.nfe_mean:.1f} evaluations a sample in the mean, "
                f"{row.nfe_max} at most."
            )
    lines.append("overhead: solver arithmetic and metrics on top of the network's own time.")
    lines.append(f"{len(rows)} rows in {out}/rows.csv and rows.parquet; `fastsample show {out}` prints them again.")
    return lines
