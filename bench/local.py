"""Jobs done one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fastsample.bench.cells import Cell
from fastsample.bench.plan import Job
from fastsample.bench.worker import Arrays, Worker

__all__ = ["Result", "in_process"]


class Result(NamedTuple):
    """What a job says of one of its cells; why, if it failed."""

    job: Job
    sampling: str
    found: Arrays | Exception


def in_process(worker: Worker, cells: Mapping[str, Cell], jobs: Sequence[Job], failed: set[str]) -> Iterator[Result]:
    """Each job's results as they come; a model is released after its last job.

    Args:
        cells: by their `sampling`.
        failed: cells that are not computed any more; whoever reads the results adds to it.
    """
    for place, job in enumerate(jobs):
        wanted = [cells[key] for key in job.cells if key not in failed]
        try:
            for cell, found in worker.measure(wanted, *job.part) if wanted else ():
                yield Result(job, cell.sampling, found)
        except Exception as error:  # of the model, or of the noise: it is every cell's
            yield from (Result(job, cell.sampling, error) for cell in wanted)
        later = {cells[key].model.id for other in jobs[place + 1 :] for key in other.cells[:1]}
        if wanted and wanted[0].model.id not in later:
            worker.tools.sampler.release(wanted[0].model)
