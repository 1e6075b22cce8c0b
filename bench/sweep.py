"""A whole sweep on the terminal: cells with progress, then the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import fastsample.bench.metrics.measures  # noqa: F401 - registers them
from fastsample.bench.cells import Cell, plan_cells
from fastsample.bench.jobs.dispatch import Crew, Dispatch
from fastsample.bench.jobs.ledger import Ledger, Purpose
from fastsample.bench.jobs.messages import Failure, Order, order_of
from fastsample.bench.jobs.outlook import aliases, outlook
from fastsample.bench.jobs.plan import Job, cost_of, jobs_of
from fastsample.bench.jobs.stages import STAGES, Stages
from fastsample.bench.local import InProcess
from fastsample.bench.metrics.extractor_weights import files_of
from fastsample.bench.metrics.extractors import known_extractors
from fastsample.bench.metrics.features import EMBEDDED, INCEPTION
from fastsample.bench.metrics.measure import Tools, available
from fastsample.bench.metrics.own import add_own_metrics
from fastsample.bench.request import Request, RequestError
from fastsample.bench.run import Part, Runner
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.bench.worker import Worker
from fastsample.datasets.names import nearest
from fastsample.results.forms.sheet import to_rich
from fastsample.results.metrics import METRICS, parse_metric
from fastsample.results.overview import overview_sheet, sentences
from fastsample.results.row import Row, frame_of
from fastsample.results.storage.writable import check_folder
from fastsample.results.store import Store
from fastsample.results.training import training_notes

__all__ = ["Prepared", "prepare", "run_sweep", "swept", "timed"]

_PATIENCE = 5.0  # seconds before a log hears of models that are opened: what is refused is refused in one line


@dataclass
class Prepared:
    """A request ready to be computed: its cells, what measures them, and what failed already."""

    cells: list[Cell]
    worker: Worker
    failures: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)  # metrics that nobody named and that cannot be had, and why


def prepare(request: Request, console: Console, weights: Mapping[str, Path] | None = None) -> Prepared:
    """Plan the cells of a request and open what measures them; what is left out is said on the console.

    Args:
        weights: files of the weights of extractors by name; of others they are looked for where they belong.

    Raises:
        ValueError: for a request that names something unknown or cannot be carried out.
    """
    device = choose_device(request.device)
    check_precision(request.precision, device)
    add_own_metrics(request.metrics)
    wanted = {text: parse_metric(text, EMBEDDED) for text in request.metrics}
    for asked in wanted.values():
        if asked.metric.needs == "features" and asked.extractor not in known_extractors():
            raise RequestError(nearest(asked.extractor, known_extractors(), "feature extractor"))
    planned, skipped = plan_cells(request, tuple(request.metrics), console)
    known = {name for asked in wanted.values() for name in (*files_of(asked.extractor), asked.metric.kind)}
    for name in {*(weights or ())} - known:
        kinds = " and ".join(kind for kind, metric in METRICS.items() if INCEPTION in files_of(metric.extractor))
        if name == INCEPTION:
            raise RequestError(f"--inception-weights is for {kinds}, and none of them is asked for")
        raise RequestError(f"--extractor-weights: no metric in the features of {name} is asked for")
    tools = Tools(Sampler(device), weights or {}, console)
    measures, reasons, notes = available(planned, wanted, tools)
    for note in dict.fromkeys(notes):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    without: list[str] = []
    for (what, reason), of in reasons.items():
        which = f"{' and '.join(dict.fromkeys(of))}{f' for {what}' if what else ''}"
        if "metrics" in request.model_fields_set:
            console.print(f"[yellow]without {escape(which)}:[/] {escape(reason)}", highlight=False, soft_wrap=True)
        else:
            without.append(f"{which}: {reason.removesuffix('. Going on with the other metrics.')}")
    had = [tuple(text for text, one in measures.items() if not one.why_not(cell)[1]) for cell in planned]
    # What a cell has of them is a part of its identity: a metric that is to be had another day makes another row.
    cells = [replace(cell, metrics=texts) for cell, texts in zip(planned, had, strict=True) if texts]
    if not cells:
        raise RequestError(f"no metric is left: {next(iter(reasons))[1]}")
    for cell in cells if request.save_samples else ():
        if len(cell.model.image_shape) != 3:
            raise RequestError(f"--save-samples: samples of {cell.model.id} are no images")
    images = request.keep == "images" or bool(request.save_samples)
    worker = Worker(tools, list(measures.values()), images=images, batch_size=request.batch_size)
    ready = Prepared(cells, worker, without=without)
    for cell, texts in zip(planned, had, strict=True):
        if not texts:
            _fail(ready.failures, console, f"{cell}: none of the metrics asked for says anything about it")
    for skip in skipped:
        if skip.failed:
            _fail(ready.failures, console, f"{skip.what}: {skip.reason}")
        else:
            console.print(f"[yellow]skipped[/] {escape(f'{skip.what}: {skip.reason}')}", highlight=False)
    return ready


def run_sweep(
    request: Request,
    console: Console,
    weights: Mapping[str, Path] | None = None,
    hire: Callable[[Order], Crew] | None = None,
    *,
    plan: bool = False,
) -> list[str]:
    """Compute and show the cells of a request; returns the messages of cells that failed.

    A failure is of its cell: the others are computed. Raises as `prepare` does.

    Args:
        weights: as `prepare` takes them.
        hire: starts workers; without it this process is the only one.
        plan: only tell what is to be computed and what it costs.
    """
    if not plan:
        check_folder(request.out)
    with Stages(console, "opening models", after=_PATIENCE, each=True) as stages:
        ready = prepare(request, console, weights)
        if plan:
            stages.at("probes of what a network call takes")
            _foretold(ready, _runner(request, ready), console)
            return ready.failures

        def crew(runner: Runner) -> Crew:
            assert hire
            stages.at("starting workers")
            return hire(order_of(request, weights or {}, runner, ready.cells))

        rows = swept(request, ready, console, crew if hire else None, stages)
        told = [*_footnotes(rows, request.out, ready.without), _calls(ready.worker.tools.ledger)] if rows else []
        table = to_rich(overview_sheet(frame_of(rows))) if rows else ""
    if rows:
        console.print(table)
        for line in told:
            console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    return ready.failures


def swept(
    request: Request,
    ready: Prepared,
    console: Console,
    crew: Callable[[Runner], Crew] | None = None,
    stages: Stages | None = None,
) -> list[Row]:
    """The rows of a request, from its store or computed; what failed is added to the failures.

    Args:
        crew: starts workers; without it this process is the only one.
        stages: are told what is done, which without them is told here.
    """
    runner, cells = _runner(request, ready), {cell.sampling: cell for cell in ready.cells}
    hire = lambda: crew(runner) if crew else InProcess(ready.worker, cells)  # noqa: E731
    with nullcontext(stages) if stages else Stages(console, "planning") as told:
        try:
            return _computed(ready, runner, console, hire, told)
        finally:
            told.at("summary of the store")
            runner.store.summarise()


def _runner(request: Request, ready: Prepared) -> Runner:
    return Runner(Store(request.out), ready.worker, request.keep, save=request.save_samples)


def timed(request: Request, console: Console) -> tuple[list[Cell], Worker]:
    """The cells of a request and a worker that measures nothing of their samples; raises as `prepare` does."""
    device = choose_device(request.device)
    check_precision(request.precision, device)
    return plan_cells(request, (), console)[0], Worker(Tools(Sampler(device)), [], batch_size=request.batch_size)


def _foretold(ready: Prepared, runner: Runner, console: Console) -> None:
    missing = {cell.sampling: runner.missing(cell) for cell in ready.cells if not runner.finished(cell)}
    cells = {cell.sampling: cell for cell in ready.cells}
    if jobs := jobs_of(missing, ready.cells):
        table, sum_told = outlook(jobs, cells, ready.worker)
        console.print(table)
        console.print(sum_told, highlight=False, soft_wrap=True)
    console.print(f"{len(ready.cells) - len(missing)} of {len(ready.cells)} cells are finished", highlight=False)
    for line in aliases(ready.cells):
        console.print(line, highlight=False, soft_wrap=True)


def _computed(ready: Prepared, runner: Runner, console: Console, crew: Callable[[], Crew], stages: Stages) -> list[Row]:
    """The rows of the cells, from the store or computed, with progress in evaluations."""
    rows: dict[str, Row] = {}
    missing: dict[str, set[Part]] = {}
    failed: set[str] = set()
    cells = {cell.sampling: cell for cell in ready.cells}

    def fail(cell: Cell, failure: Failure) -> None:
        failed.add(cell.sampling)
        if failure.lasting:
            runner.drop(cell)
        _fail(ready.failures, console, f"{cell}: {failure.reason}; no row was written")

    def commit(cell: Cell) -> None:
        """The row of a cell, or its parts among those that are missing again."""
        try:
            if row := runner.settle(cell):
                rows[cell.sampling] = row
            else:
                missing[cell.sampling] = {*(runner.missing(cell) or runner.parts(cell))}
        except Exception as error:  # of a metric, out of memory, a full disk, ...
            fail(cell, Failure.of(error))

    def settle(group: str) -> list[Job]:
        """Write the rows of finished cells, in the order of the request; what has to be done again."""
        for cell in ready.cells:
            key = cell.sampling
            if cell.group != group or key in rows or key in failed:
                continue
            if missing.get(key):
                break
            stages.at(STAGES["metrics"])
            commit(cell)
            if missing.get(key):
                return jobs_of({key: missing[key]}, [cell])
        return []

    for cell in ready.cells:
        if row := runner.finished(cell):
            rows[cell.sampling] = row
        elif parts := runner.missing(cell):
            missing[cell.sampling] = {*parts}
        else:
            commit(cell)
    jobs = jobs_of(missing, ready.cells)
    cost = cost_of(jobs, cells, ready.worker)
    with stages.counting(cost.made + cost.references):

        def tick(purpose: Purpose, evaluations: int) -> None:
            stages.at(STAGES[purpose], evaluations)

        ready.worker.tools.ledger.tick = tick
        there = lambda key, part: runner.there(cells[key], part)  # noqa: E731
        note = lambda line: console.print(f"[yellow]note:[/] {escape(line)}", highlight=False, soft_wrap=True)  # noqa: E731
        ledger, claim = ready.worker.tools.ledger, runner.store.claim
        dispatch = Dispatch(crew, jobs, failed, claim, there, ledger, note)
        runner.devices = dispatch.devices
        for job, key, found in dispatch:
            cell = cells[key]
            if key in failed:
                continue
            if isinstance(found, Failure):
                fail(cell, found)
            else:
                try:
                    if found is not None:
                        runner.add(cell, job.part, found)
                    missing[key].discard(job.part)
                except OSError as error:
                    fail(cell, Failure.of(error))
            if key in failed or not missing[key]:
                dispatch.jobs += settle(cell.group)
    return [rows[cell.sampling] for cell in ready.cells if cell.sampling in rows]


def _fail(failures: list[str], console: Console, what: str) -> None:
    failures.append(what)
    console.print(f"[bold red]no row:[/] {escape(what)}", highlight=False, soft_wrap=True)


def _calls(ledger: Ledger) -> str:
    calls = ledger.calls
    return f"network calls: {calls['sampling']:,} for samples, {calls['references']:,} for reference solutions."


def _footnotes(rows: list[Row], out: Path, without: list[str]) -> list[str]:
    lines = sentences(frame_of(rows), list(dict.fromkeys(name for row in rows for name in row.metrics)))
    lines += training_notes(frame_of(rows), list(dict.fromkeys(name for row in rows for name in row.metrics)))
    for row in rows:
        if row.nfe_max is not None:
            lines.append(
                f"{row.title} on {row.model}, seed {row.seed}: {row.nfe_mean:.1f} evaluations a sample in the mean, "
                f"{row.nfe_max} at most."
            )
    lines.append("overhead: solver arithmetic and metrics on top of the network's own time.")
    if without:
        lines.append(f"not measured: {'; '.join(without)}. `fastsample list metrics` names all that can be measured.")
    lines.append(f"{len(rows)} rows in {out}/rows.csv and rows.parquet; `fastsample show {out}` prints them again.")
    return lines
