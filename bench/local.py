"""Workers on this machine: this process itself, or processes of their own, one for each device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import torch

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.messages import Done, Failure, Lost, Message, Order, Ready, Result
from fastsample.bench.jobs.plan import Job
from fastsample.bench.sampling import choose_device
from fastsample.bench.worker import Worker

__all__ = ["InProcess", "Processes", "results_of"]


def results_of(worker: Worker, cells: Mapping[str, Cell], job: Job) -> Iterator[Result]:
    """What a job says of each of its cells, as it comes.

    Args:
        cells: by their `sampling`.
    """
    left = {key: cells[key] for key in job.cells}
    worker.turn_to(cells[job.cells[0]].model)
    try:
        for cell, found in worker.measure([*left.values()], *job.part):
            del left[cell.sampling]
            yield Result(job, cell.sampling, Failure.of(found) if isinstance(found, Exception) else found)
    except Exception as error:  # of the model, or of the noise: it is every cell's
        failure = Failure.of(error)
        yield from (Result(job, key, failure) for key in left)


class InProcess:
    """This process as the only worker."""

    def __init__(self, worker: Worker, cells: Mapping[str, Cell]) -> None:
        self.count, self.worker, self.cells = 1, worker, cells
        self._going: Iterator[Message] = iter([Ready(worker.tools.sampler.device_name)])

    def give(self, number: int, job: Job) -> None:
        self._going = chain(results_of(self.worker, self.cells, job), [Done()])

    def heard(self, seconds: float | None) -> Iterator[tuple[int, Message]]:
        for message in self._going:
            yield 0, message
        time.sleep(seconds or 0)

    def again(self, number: int) -> None:
        raise AssertionError("this process is here")

    def close(self) -> None:
        pass


_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from fastsample.bench.jobs.station import serve; serve(int(sys.argv[1]))"
)


class Processes:
    """So many processes, each a worker of its own.

    A process ends when its pipe does: no driver leaves one behind, however it ends. Ctrl-C is the driver's alone.
    """

    def __init__(self, order: Order, count: int) -> None:
        self.count, self.order, self.devices = count, order, _devices(order.request.device)
        self._all: dict[int, tuple[subprocess.Popen[bytes], Connection[Any, Message]]] = {}
        for number in range(count):
            self.again(number)

    def give(self, number: int, job: Job) -> None:
        with suppress(OSError):  # it has ended, which is heard
            self._all[number][1].send(job)

    def heard(self, seconds: float | None) -> Iterator[tuple[int, Message]]:
        numbers = {pipe: number for number, (_, pipe) in self._all.items()}
        for pipe in wait([*numbers], seconds):
            assert isinstance(pipe, Connection)
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = Lost(self._end(numbers[pipe]))
            yield numbers[pipe], message

    def again(self, number: int) -> None:
        self._end(number)
        device = self.devices[number % len(self.devices)]
        threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), process_group=0, env={**threads, **os.environ},
            )  # fmt: skip
        self._all[number] = process, ours
        with suppress(OSError):
            ours.send(replace(self.order, request=self.order.request.model_copy(update={"device": device})))

    def close(self) -> None:
        for number in [*self._all]:
            self._end(number)

    def _end(self, number: int) -> str:
        """Make sure that a process has ended; how it did, if it had by itself."""
        if number not in self._all:
            return ""
        process, pipe = self._all.pop(number)
        pipe.close()
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _devices(name: str) -> list[str]:
    """The devices of workers in turn: all CUDA devices, unless one of them is named."""
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]
