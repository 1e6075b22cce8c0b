"""What a command is at, told while it works: a bar on a terminal; in a log a line for each stage, and for each silence.

A thread tells it, so that a stage which says nothing by itself (weights that are read, one long network call, the
eigenvalues of a distance) is told of too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Lock, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastsample.results.forms.escaping import visible

__all__ = ["STAGES", "Stages"]

STAGES = {"references": "reference solutions", "sampling": "samples", "metrics": "metrics"}  # of `jobs.ledger`
_SILENCE = 20.0  # seconds after which a log has another line
_GLANCE = 0.1  # seconds between two looks at the clock


class Stages:
    """Tells on stderr what is done, as long as it is entered.

    Args:
        console: of the command; where it is a terminal evaluations are a bar on it, and a stage without them is told
            once. One that is quiet tells nothing.
        stage: the first one.
        after: seconds of a stage before it is told.
        each: in a log each stage of evaluations is told when it begins.
    """

    def __init__(self, console: Console, stage: str, after: float = 1.0, each: bool = False) -> None:
        self.console, self.terminal, self.after, self.each = console, console.is_terminal, after, each
        self._stage, self._met = stage, {stage}
        self._made, self._total = 0, 0
        self._begin = self._first = time.monotonic()
        self._due: float | None = self._begin + self.after
        self._bar: Progress | None = None
        self._lock, self._over = Lock(), Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Stages:
        if not self.console.quiet:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def counting(self, total: int) -> Iterator[None]:
        """What is done inside is told in evaluations, of so many."""
        self._total, self._first = total, time.monotonic()
        if self.terminal and not self.console.quiet:
            columns = (
                TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("evaluations"),
                TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self._due, self._bar = None, Progress(*columns, console=self.console, transient=True)
            self._bar.add_task(self._stage, total=total)
            self._bar.start()
        try:
            yield
        finally:
            if self._bar:
                self._bar.stop()
            self._bar, self._total = None, 0

    def at(self, stage: str, evaluations: int = 0) -> None:
        """The stage that is worked at, and evaluations made since it was last told."""
        at_once = self.each and self._total > 0 and not self.terminal
        with self._lock:
            self._made += evaluations if self._total else 0
            if stage != self._stage and (stage not in self._met or not self._total):
                wait = 0.0 if at_once else self.after
                self._due = None if self._bar else min(time.monotonic() + wait, self._due or float("inf"))
            self._stage = stage
            self._met.add(stage)
            if self._bar:
                self._bar.update(self._bar.task_ids[0], description=stage, advance=evaluations)
        if at_once:
            self._glance()

    def detail(self, text: str) -> None:
        """What the stage is at by now, which a log tells with its next line and not in one of its own."""
        with self._lock:
            self._stage = text

    def _watch(self) -> None:
        while not self._over.wait(_GLANCE):
            self._glance()

    def _glance(self) -> None:
        """Tell the stage where it is due."""
        with self._lock:
            now = time.monotonic()
            if self._due is None or now < self._due or self._over.is_set() or self.console.quiet:
                return
            self._due = None if self.terminal else now + _SILENCE
            line = visible(self._line(now))
        if sys.stderr:
            print(line, file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        told = [self._stage]
        if self._total:
            told[0] += f": {self._made:,} of {max(self._total, self._made):,} evaluations"
        if now - self._begin >= 1:
            told.append(f"{_clock(now - self._begin)} so far")
        if 0 < self._made < self._total:
            told.append(f"about {_clock((self._total / self._made - 1) * (now - self._first))} left")
        return ", ".join(told)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
