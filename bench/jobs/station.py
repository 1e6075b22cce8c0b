"""A worker in a process of its own, which makes itself ready for an order and then does one job after the other."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from rich.console import Console

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.ledger import Purpose
from fastsample.bench.jobs.messages import Counts, Done, Lost, Message, Order, Ready, Refused
from fastsample.bench.jobs.plan import Job
from fastsample.bench.local import results_of
from fastsample.bench.run import Runner
from fastsample.bench.sweep import prepare
from fastsample.bench.worker import Worker
from fastsample.datasets.errors import told
from fastsample.solvers.numerics import NUMERICS

__all__ = ["Station", "serve"]


_PAUSE = 1.0  # seconds between two tellings of what is made


class Station:
    """A worker, and what it tells of its work.

    Args:
        tell: hears about every second, in the middle of a job, what it has cost.
    """

    def __init__(self, order: Order, tell: Callable[[Counts], object] | None = None) -> None:
        self.order, self.tell, self._told = order, tell, 0.0
        self.worker: Worker
        self.cells: dict[str, Cell] = {}

    def open(self) -> Iterator[Message]:
        """Make ready: `Ready`, or why not."""
        try:
            self._open()
        except ValueError as error:
            yield Refused(f"{platform.node()}: {told(error)}")
        except Exception as error:
            yield Lost(told(error))
        else:
            yield Ready(self.worker.tools.sampler.device_name)

    def _open(self) -> None:
        order, own = self.order, (version("fastsample"), NUMERICS)
        if own != (order.version, order.numerics):
            raise ValueError(
                "fastsample {} with numerics {} is here, and the sweep is of {} with {}: install that one".format(
                    *own, order.version, order.numerics
                )
            )
        for name in order.modules:
            import_module(name)
        ready = prepare(order.request, Console(quiet=True), order.weights)
        self.worker, self.cells = ready.worker, {cell.sampling: cell for cell in ready.cells}
        self.worker.tools.ledger.tick = self._tick
        for key, identity in order.identities.items():
            if key not in self.cells:
                raise ValueError("a cell of the sweep is another one here: a checkpoint, card or table differs")
            cell = self.cells[key]
            if cell.identity(Runner.facts_of(cell, self.worker)) != identity:
                raise ValueError(f"{cell} would be measured otherwise here: an extractor or a reference differs")

    def do(self, job: Job) -> Iterator[Message]:
        """Do a job: its results as they come, with what they cost, and `Done`."""
        for result in results_of(self.worker, self.cells, job):
            yield result
            yield self._counts()
        yield Done()

    def _counts(self) -> Counts:
        ledger = self.worker.tools.ledger
        made = Counts(ledger.evaluations.copy(), ledger.calls.copy())
        ledger.evaluations.clear()
        ledger.calls.clear()
        return made

    def _tick(self, purpose: Purpose, evaluations: int) -> None:
        if self.tell and time.monotonic() > self._told + _PAUSE:
            self._told = time.monotonic()
            self.tell(self._counts())


def serve(descriptor: int) -> None:
    """Be the worker at the end of a pipe until it is closed, which ends the process in the middle of a job too."""
    pipe: Connection[Message, Any] = Connection(descriptor)
    heard: SimpleQueue[Any] = SimpleQueue()  # the order, then jobs

    def listen() -> None:
        try:
            while True:
                heard.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)

    def say(messages: Iterator[Message]) -> None:
        for message in messages:
            try:
                pipe.send(message)
            except OSError:
                os._exit(1)

    Thread(target=listen, daemon=True).start()
    station = Station(heard.get(), lambda counts: say(iter([counts])))
    say(station.open())
    while True:
        say(station.do(heard.get()))
