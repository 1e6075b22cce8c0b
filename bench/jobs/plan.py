"""What a sweep will do: jobs, each a part of the cells that share evaluations, and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.solution import PROBES, Reference
from fastsample.bench.run import Part
from fastsample.bench.tree import Tree
from fastsample.bench.worker import ROUNDING, Worker

__all__ = ["Cost", "Job", "cost_of", "jobs_of"]


@dataclass(frozen=True)
class Job:
    """Samples first to end of some cells of one group, named by their `sampling`; `alone`: taken from a larger one."""

    group: str
    part: Part
    cells: tuple[str, ...]
    alone: bool = False

    @property
    def name(self) -> str:
        """By which one of several processes has it, whichever of the cells are left to do."""
        return "-".join([self.group, *map(str, self.part), *(self.cells if self.alone else ())])


def jobs_of(missing: Mapping[str, Collection[Part]], cells: Iterable[Cell]) -> list[Job]:
    """The jobs of cells of which parts are missing: group by group in the order of the cells, part by part."""
    groups: dict[str, dict[Part, list[str]]] = {}
    for cell in cells:
        parts = groups.setdefault(cell.group, {})
        for part in missing.get(cell.sampling, ()):
            parts.setdefault(part, []).append(cell.sampling)
    return [
        Job(group, part, tuple(several)) for group, parts in groups.items() for part, several in sorted(parts.items())
    ]


@dataclass(frozen=True)
class Cost:
    """Evaluations, each of one sample.

    Attributes:
        needed: of the cells one by one; adaptive ones are not foreseen.
        made: of them with what they share made once.
        references: of reference solutions that are not in the cache, and of how well they are known.
    """

    needed: int = 0
    made: int = 0
    references: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.needed + other.needed, self.made + other.made, self.references + other.references)


def cost_of(jobs: Sequence[Job], cells: Mapping[str, Cell], worker: Worker) -> Cost:
    """What jobs cost; nothing is opened or computed."""
    total, trees, solved = Cost(), dict[tuple[str, ...], tuple[int, int]](), dict[str, tuple[Reference, int]]()
    for job in jobs:
        several = [cells[key] for key in job.cells]
        if job.cells not in trees:
            tables = [cell.rows for cell in several if cell.rows]
            alone = sum(len(cell.plan.asked()) for cell in several if not (cell.rows or cell.plan.solver.adaptive))
            shared = len(Tree(tables, several[0].dtype).times)
            trees[job.cells] = alone + sum(table.nfe for table in tables), alone + shared
        count = job.part[1] - job.part[0]
        needed, made = trees[job.cells]
        walks = dict[str, int]()
        for cell in several:
            against = [one for one in worker.of(cell) if one.asked.metric.needs == "solution"]
            compared = min(job.part[1], cell.compared or cell.samples)
            if against and compared > job.part[0]:
                reference = worker.tools.reference(cell)
                most = solved.get(reference.id, (reference, 0))[1]
                solved[reference.id] = reference, max(most, compared)
                probes = max(measure.probes(cell) for measure in against)
                walks[reference.id] = max(0, min(job.part[1], probes) - job.part[0]) * reference.steps
            exact = worker.names(cell, *job.part).get(ROUNDING, 0)
            total += Cost(references=exact * (cell.rows.nfe if cell.rows else 0))
        total += Cost(count * needed, count * made, sum(walks.values()))
    for reference, most in solved.values():
        judged = 0 if reference.bounded else PROBES * (reference.steps + reference.steps // 2)
        total += Cost(references=reference.missing(most) * (reference.steps + 1) + judged)
    return total
