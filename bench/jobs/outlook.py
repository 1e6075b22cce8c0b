"""What a sweep will cost, told before it begins (`bench --plan`), and how long samplers take (`time`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from rich.markup import escape

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.plan import Job, cost_of
from fastsample.bench.timing import arithmetic
from fastsample.bench.tree import Tree
from fastsample.bench.worker import Worker
from fastsample.results.forms.screen import FittedTable

__all__ = ["aliases", "outlook", "seconds_of", "timings"]

_PROBES = 3  # network calls that are timed, after one that warms it up
_MEANING = (
    "Network calls for one sample each: needed by the cells one by one, made of them as what cells share is made once, "
    "of reference solutions. Store: what stays; meanwhile: held until a cell is finished. Seconds: of the network here."
)
_LINE, _ROW = 16, 6000  # bytes of a sample and metric, and of a row


def outlook(jobs: Sequence[Job], cells: Mapping[str, Cell], worker: Worker) -> tuple[FittedTable, str]:
    """A line for each model: its cells that are to be computed, calls, references, bytes and seconds; and their sum.

    Its counts are those of the ledger when the sweep has run; adaptive solvers, whose evaluations nobody knows before,
    are left out of them, and guidance on an interval counts as guidance all the way. The seconds are those of the
    network on this device, from a probe of a few calls.
    """
    columns = ("model", "cells", "calls needed", "made", "of references", "store [MB]", "meanwhile [MB]", "seconds")
    table = FittedTable(*map(escape, columns), title="What is to be computed")
    for column in table.columns[1:]:
        column.justify = "right"
    calls, bytes_kept, whole = 0, 0, 0.0
    for model in dict.fromkeys(cells[key].model.id for job in jobs for key in job.cells):
        own = [job for job in jobs if cells[job.cells[0]].model.id == model]
        wanted = {key: cells[key] for job in own for key in job.cells}
        some = next(iter(wanted.values()))
        seconds, cost = _seconds(worker, some), cost_of(own, cells, worker)
        forwards = _forwards(worker, some)
        kept = sum(_ROW + _LINE * cell.samples * len(cell.metrics) for cell in wanted.values())
        meanwhile = sum(cell.samples * worker.width(cell) for cell in wanted.values())
        total = (cost.made + cost.references) * forwards
        calls, bytes_kept, whole = calls + total, bytes_kept + kept, whole + total * seconds
        table.add_row(
            model, f"{len(wanted)}", *(f"{n * forwards:,}" for n in (cost.needed, cost.made, cost.references)),
            f"{kept / 1e6:,.1f}", f"{meanwhile / 1e6:,.1f}", f"{total * seconds:,.0f}",
        )  # fmt: skip
    return table, f"{_MEANING}\nIn all {_lasting(whole)}, {calls:,} network calls, {bytes_kept / 1e6:,.1f} MB."


def _lasting(seconds: float) -> str:
    """Seconds in the unit in which one plans."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:,.0f} {unit}"
    return f"about {seconds:,.0f} seconds"


def timings(cells: Sequence[Cell], worker: Worker, tell: Callable[[str], object]) -> FittedTable:
    """A line for each cell: how long one of its images takes when it is sampled alone, in batches.

    The network's time is that of a warm call, the solver's that of its arithmetic without the network; adaptive
    solvers, whose evaluations nobody knows before, are left out.

    Args:
        tell: hears which cell is timed.
    """
    columns = ("model", "solver", "NFE", "batch", "network [ms/image]", "solver [ms/image]", "images/s", "overhead")
    table = FittedTable(*map(escape, columns), title=f"On {worker.tools.sampler.device_name}")
    for column in table.columns[2:]:
        column.justify = "right"
    calls: dict[str, float] = {}
    for cell in cells:
        if not cell.rows:
            continue
        if cell.group not in calls:
            calls[cell.group] = _seconds(worker, cell)
        tell(f"timing {cell}")
        size = worker.batch(cell)
        with torch.inference_mode():
            x = worker.tools.sampler.start(cell, list(range(size)))
            solver = arithmetic(cell.rows, cell.model.path, x)
        denoiser = worker.tools.sampler.denoiser(cell, [0])
        network = calls[cell.group] * sum(denoiser.forwards(float(t)) for t in cell.rows.times)
        table.add_row(
            cell.model.id, cell.sampler, f"{cell.rows.nfe}", f"{size}", f"{1e3 * network:.3g}", f"{1e3 * solver:.3g}",
            f"{1 / (network + solver):.4g}", f"{100 * solver / network:.1f} %" if network else "-",
        )  # fmt: skip
    return table


def _seconds(worker: Worker, cell: Cell) -> float:
    """Of the cell's network for one sample, on the device and in batches; 0 for exact models."""
    sampler, indices = worker.tools.sampler, list(range(worker.batch(cell)))
    if (network := sampler.network(cell)) is None:
        return 0.0
    with torch.inference_mode():
        denoiser, x = sampler.denoiser(cell, indices), sampler.start(cell, indices)
        for _ in range(1 + _PROBES):
            denoiser.velocity(x, cell.model.path.t_noise)
    return network.per_sample()


def _forwards(worker: Worker, cell: Cell) -> int:
    """Network calls of an evaluation, the most that there are: guidance may act on a part of the way alone."""
    denoiser = worker.tools.sampler.denoiser(cell, [0])
    return max(denoiser.forwards(float(t)) for t in (cell.rows.times if cell.rows else [cell.model.path.t_noise]))


def seconds_of(worker: Worker, cell: Cell) -> float:
    """Of the network for one evaluation of a sample, on the device and in the worker's batches; 0 for exact models."""
    return _seconds(worker, cell) * _forwards(worker, cell)


def aliases(cells: Sequence[Cell]) -> list[str]:
    """Which cells are one solver under several names: a sentence for each."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.rows:
            groups.setdefault(cell.group, []).append(cell)
    found = []
    for several in groups.values():
        tree = Tree([cell.rows for cell in several if cell.rows], torch.float32)  # as equal as rounding lets them be
        for leaf in tree.leaves:
            names = [f"{several[place].sampler} {several[place].plan.grid}" for place in leaf.cells]
            if len(names) > 1:
                first = several[leaf.cells[0]]
                found.append(f"{' and '.join(names)} are one sampler at NFE {first.plan.nfe} on {first.model.id}")
    return list(dict.fromkeys(found))
