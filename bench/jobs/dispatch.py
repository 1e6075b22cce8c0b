"""Jobs go out to workers, results come in; what a lost worker had is given to another.

Several drivers may work on one store: each claims the job that it gives out, leaves those that another has to the end,
and looks for their parts in the store then. A driver that ends, however it does, leaves no claim.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Protocol

from fastsample.bench.jobs.ledger import Ledger
from fastsample.bench.jobs.messages import Counts, Done, Failure, Lost, Message, Ready, Refused, Result
from fastsample.bench.jobs.plan import Job
from fastsample.bench.run import Part

__all__ = ["Crew", "Dispatch"]

_LOSSES = 3  # of workers, after which a cell has failed, or a worker that never was ready is given up
_POLL = 0.5  # seconds between two looks at what another process has


class Crew(Protocol):
    """Workers by number from 0, each of which does one job at a time."""

    count: int

    def give(self, number: int, job: Job) -> None:
        """Give a job to a worker that is ready."""

    def heard(self, seconds: float | None) -> Iterable[tuple[int, Message]]:
        """What workers say next, and which; nothing if none of them does within some seconds."""

    def again(self, number: int) -> None:
        """Start a worker that was lost again."""

    def close(self) -> None:
        """End all workers."""


class Dispatch:
    """Gives out jobs one by one; iterating gives the results as they come, until no job is left.

    Args:
        hire: starts the workers, once there is a job for them; they end with the jobs.
        jobs: in the order in which they are done.
        failed: cells that are not computed any more, by `sampling`; whoever reads the results adds to it.
        claim: true for the one process that may do a job of that name.
        there: whether the store has a part of a cell, from another process.
        ledger: where what workers make is entered.
        note: hears in a line of what is lost or waited for.

    Raises:
        RuntimeError: where no worker is left.
    """

    def __init__(
        self,
        hire: Callable[[], Crew],
        jobs: Iterable[Job],
        failed: Collection[str],
        claim: Callable[[str], AbstractContextManager[bool]],
        there: Callable[[str, Part], bool],
        ledger: Ledger,
        note: Callable[[str], None],
    ) -> None:
        self.hire, self.jobs, self.failed = hire, deque(jobs), failed
        self.claim, self.there, self.ledger, self.note = claim, there, ledger, note
        self.crew: Crew
        self.devices: list[str] = []  # of the workers that have been ready
        self._idle: list[int] = []
        self._at: dict[int, tuple[Job, set[str], ExitStack]] = {}  # by worker: its job, cells to come, the claim
        self._lost: Counter[tuple[str, Part]] = Counter()
        self._unready: Counter[int] = Counter()  # losses in a row of a worker that has not been ready
        self._gone: set[int] = set()
        self._waiting = False

    def __iter__(self) -> Iterator[Result]:
        if not self.jobs:
            return
        self.crew = self.hire()
        try:
            while self.jobs or self._at:
                while self.jobs and self._idle:
                    given, found = self._next()
                    yield from found
                    if not given:
                        break
                if self.jobs or self._at:
                    for number, message in self.crew.heard(_POLL if self.jobs and self._idle else None):
                        yield from self._take(number, message)
        finally:
            for _, _, claim in self._at.values():
                claim.close()
            self.crew.close()

    def _next(self) -> tuple[bool, list[Result]]:
        """Give the next job that no other process has to an idle worker; and what is in the store by now."""
        found: list[Result] = []
        for _ in range(len(self.jobs)):
            job = self.jobs.popleft()
            claim = ExitStack()
            if not claim.enter_context(self.claim(job.name)):
                self.jobs.append(job)
                continue
            wanted = [key for key in job.cells if key not in self.failed]
            there = {key for key in wanted if self.there(key, job.part)}
            found += [Result(job, key, None) for key in wanted if key in there]
            if rest := tuple(key for key in wanted if key not in there):
                number = self._idle.pop(0)
                job = replace(job, cells=rest)
                self._at[number] = job, {*rest}, claim
                self.crew.give(number, job)
                return True, found
            claim.close()
        if self.jobs and not self._at and not self._waiting:
            self._waiting = True
            what = "1 job is" if len(self.jobs) == 1 else f"{len(self.jobs)} jobs are"
            self.note(f"{what} at work in another process on this store, which is waited for")
        return False, found

    def _take(self, number: int, message: Message) -> Iterator[Result]:
        match message:
            case Ready(device):
                self._unready[number] = 0
                self._idle.append(number)
                if device not in self.devices:
                    self.devices.append(device)
            case Result():
                self._at[number][1].discard(message.sampling)
                yield message
            case Counts(evaluations, calls):
                for purpose, count in evaluations.items():
                    self.ledger.add(purpose, count, calls[purpose])
            case Done():
                self._at.pop(number)[2].close()
                self._idle.append(number)
            case Refused(reason):
                self.note(f"a worker refuses: {reason}")
                self._without(number, reason)
            case Lost(reason):
                yield from self._after(number, reason)

    def _after(self, number: int, reason: str) -> Iterator[Result]:
        """A worker is lost: what it had goes back, each cell alone, so that the one that does it fails alone."""
        if number in self._idle:
            self._idle.remove(number)
        if number in self._at:
            job, left, claim = self._at.pop(number)
            claim.close()
            rest = [key for key in job.cells if key in left and key not in self.failed]
            for key in reversed(rest):
                self._lost[key, job.part] += 1
                if self._lost[key, job.part] < _LOSSES:
                    self.jobs.appendleft(replace(job, cells=(key,), alone=job.alone or len(rest) > 1))
                else:
                    yield Result(job, key, Failure(f"{_LOSSES} workers were lost at it: {reason}"))
            self.note(f"a worker was lost: {reason}; its job is done again")
        else:
            self._unready[number] += 1
        if self._unready[number] < _LOSSES:
            self.crew.again(number)
        else:
            self.note(f"a worker does not start: {reason}")
            self._without(number, reason)

    def _without(self, number: int, reason: str) -> None:
        self._gone.add(number)
        if len(self._gone) == self.crew.count:
            raise RuntimeError(f"no worker is left: {reason}")
