"""What a driver and its workers say to each other, over a pipe or over Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.ledger import Purpose
from fastsample.bench.jobs.plan import Job
from fastsample.bench.metrics.measure import MEASURES
from fastsample.bench.request import Request
from fastsample.bench.run import Runner
from fastsample.bench.worker import Arrays
from fastsample.datasets.errors import told
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import solvers

__all__ = ["Counts", "Done", "Failure", "Lost", "Message", "Order", "Ready", "Refused", "Result", "order_of"]


@dataclass(frozen=True)
class Order:
    """What a worker makes itself ready for, and what it must agree in with the driver.

    Attributes:
        request: with the device of the worker.
        weights: files of the weights of extractors by name.
        modules: own files that have registered solvers or metrics, by the name of the module.
        version: of fastsample.
        numerics: of the solvers.
        identities: of the cells that may come, by their `sampling`.
    """

    request: Request
    weights: Mapping[str, Path]
    modules: tuple[str, ...]
    version: str
    numerics: int
    identities: Mapping[str, str]


def order_of(request: Request, weights: Mapping[str, Path], runner: Runner, cells: Iterable[Cell]) -> Order:
    """What workers of a sweep are told."""
    registered = [*MEASURES.values(), *(solver.solve for solver in solvers().values())]
    own = {one.__module__ for one in registered if not one.__module__.startswith("fastsample.")} - {"__main__"}
    identities = {cell.sampling: cell.identity(runner.facts(cell)) for cell in cells}
    return Order(request, weights, tuple(sorted(own)), version("fastsample"), NUMERICS, identities)


class Failure(NamedTuple):
    """Why a cell has no numbers, and whether it would have none the next time either."""

    reason: str
    lasting: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """In one line, told where the error was raised: its traceback does not travel."""
        return cls(told(error), isinstance(error, FloatingPointError))


class Result(NamedTuple):
    """What a job says of one of its cells; why, if it failed; None where the store has it by now."""

    job: Job
    sampling: str
    found: Arrays | Failure | None


class Counts(NamedTuple):
    """Evaluations and network calls that a worker has made since it last said so; see `bench.jobs.ledger`."""

    evaluations: Counter[Purpose]
    calls: Counter[Purpose]


class Ready(NamedTuple):
    """A worker can do jobs, on this device."""

    device: str


class Done(NamedTuple):
    """A worker has done its job."""


class Refused(NamedTuple):
    """A worker does no jobs, because it would not compute what was planned."""

    reason: str


class Lost(NamedTuple):
    """A worker has ended, in the middle of its job if it had one."""

    reason: str


Message = Result | Counts | Ready | Done | Refused | Lost
