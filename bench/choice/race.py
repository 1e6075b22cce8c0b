"""A race of training-free samplers: all of them on few samples, the best of them on more, until intervals part them.

From the first round a sampler goes on with its grid's parameters varied.
Rounds before the last have stores of their own in `race` under the store, where an interrupted race finds what it had
finished; the rows of the last round go into the store itself, beside those of what was learned for the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fastsample.bench.choice.untried import candidates, finer, trained
from fastsample.bench.jobs.outlook import seconds_of
from fastsample.bench.jobs.plan import Cost, cost_of, jobs_of
from fastsample.bench.request import Request
from fastsample.bench.sweep import Prepared, prepare, swept
from fastsample.results.commands import GIVEN
from fastsample.results.comparable import STATED, incomparable
from fastsample.results.evidence import Comparison
from fastsample.results.metrics import MAIN
from fastsample.results.overview import select
from fastsample.results.row import Row, frame_of
from fastsample.results.statistics import FEWEST
from fastsample.results.store import Store

__all__ = ["Race", "raced", "races"]

ROUNDS = ((2, 24), (8, 6))  # samples of each sampler, and how many samplers go on from there at most
SAMPLES = 64  # of the last round: the first batch of reference solutions
_LEAST = 2  # samplers that go on: the lead of the best is measured in the last round


def _folder(out: Path, samples: int) -> Path:
    return out / "race" / str(samples)


def raced(out: Path, model: str, budget: int) -> bool:
    """Whether the first round of a race was run for a model at a budget, and its rows lie in a store."""
    folder = _folder(out, ROUNDS[0][0])
    if not (folder / "rows").is_dir():
        return False
    return any((row.model, row.nfe_asked) == (model, budget) for row in Store(folder, create=False).rows())


@dataclass
class Race:
    """A race for one model.

    Args:
        request: of the last round: model, protocol, seed and samples, device and store.
        budget: evaluations that a sampler may make.
        console: shows progress.
        say: hears a line after each round.
    """

    request: Request
    budget: int
    console: Console
    say: Callable[[str], object]
    _first: Prepared = field(init=False)

    def __post_init__(self) -> None:
        self._first = self._prepared(self._pairs, self._rounds[0][0])

    @property
    def _pairs(self) -> list[str]:
        return [f"{solver}@{grid}" for solver, grid in candidates()]

    @property
    def model(self) -> str:
        """The id of the model in rows."""
        return self._first.cells[0].model.id

    @property
    def _rounds(self) -> list[tuple[int, int]]:
        """Those of fewer samples than the last, or else the first of them."""
        return [one for one in ROUNDS if one[0] < self.request.samples] or [ROUNDS[0]]

    @property
    def _most(self) -> list[int]:
        """How many samplers each round leaves at most."""
        varied = 1 + max(len(finer(grid)) for _, grid in candidates())
        return [most * (1 if place else varied) for place, (_, most) in enumerate(self._rounds)]

    def _asked(self, samplers: Sequence[str], samples: int, nfe: int) -> Request:
        """The request of a round; samples before the last are one batch."""
        last = samples == self.request.samples
        return self.request.model_copy(update={
            "solver": tuple(samplers), "nfe": (nfe,), "grid": (), "samples": samples, "metrics": (MAIN,),
            "batch_size": self.request.batch_size if last else samples,
            "seeds": self.request.seeds if last else 1,
            "out": self.request.out if last else _folder(self.request.out, samples),
        })  # fmt: skip

    def _prepared(self, samplers: Sequence[str], samples: int, nfe: int = 0) -> Prepared:
        """What a solver cannot do with the budget is left out in silence."""
        return prepare(self._asked(samplers, samples, nfe or self.budget), Console(quiet=True))

    @property
    def cost(self) -> tuple[Cost, float]:
        """What it costs at most, without what is finished already, and the network's seconds on this device."""
        ready, rounds, seeds = self._first, self._rounds, self.request.seeds
        last = self._prepared([ready.cells[0].sampler], self.request.samples)
        wholes = [
            cost_of(jobs_of({cell.sampling: [(0, cell.samples)] for cell in one.cells}, one.cells),
                    {cell.sampling: cell for cell in one.cells}, one.worker)
            for one in (ready, last)
        ]  # fmt: skip
        there = trained(ready.cells[0].model, self.request.guidance, self.budget, ready.cells[0].model.path)
        later = [samples for samples, _ in rounds[1:]] + [self.request.samples * seeds]
        after = sum(most * samples for most, samples in zip(self._most, later, strict=True))
        after = self.budget * (after + len(there) * self.request.samples * seeds)
        references = wholes[1].references
        few, many = (seconds_of(one.worker, one.cells[0]) for one in (ready, last))
        total = Cost(after + wholes[0].needed, after + wholes[0].made, references)
        return total, wholes[0].made * few + (after + references) * many

    def told(self) -> str:
        """Its cost in a sentence or two."""
        cost, seconds = self.cost
        steps = [f"{len(self._first.cells)} pairs of solver and grid on {self._rounds[0][0]} samples"]
        then = [samples for samples, _ in self._rounds[1:]] + [self.request.samples]
        steps += [f"at most {most} on {samples}" for most, samples in zip(self._most, then, strict=True)]
        device = self._first.worker.tools.sampler.device_name
        return (
            f"search for {self.model} at NFE {self.budget}: {', '.join(steps)}; at most {cost.made:,} evaluations for "
            f"samples and {cost.references:,} for reference solutions, about {seconds:,.0f} s of network on {device}."
        )

    def run(self) -> None:
        """Run it; the rows of the last round, and of what was learned or found for the model, are in the store.

        Raises:
            RuntimeError: where no row of a round could be had.
        """
        entrants: list[str] = self._pairs
        ready: Prepared | None = self._first
        for samples, most in self._rounds:
            rows = self._round(entrants, samples, self.budget, ready)
            best = self._best(rows, samples, most)
            again = [(row.sampler, row.grid) for row in best]
            if ready:
                again += [(sampler, other) for sampler, grid in again for other in finer(grid)]
            entrants, ready = [f"{sampler}@{grid}" for sampler, grid in again], None
            self.say(
                f"{len(rows)} on {samples} samples: {best[0].metrics[MAIN]:.2f} dB by {entrants[0]}; "
                f"{len(entrants)} go on"
            )
        self._round(entrants, self.request.samples, self.budget)
        model = self._first.cells[0].model
        there = trained(model, self.request.guidance, self.budget, model.path)
        for nfe in dict.fromkeys(nfe for _, nfe in there):
            self._round([name for name, of in there if of == nfe], self.request.samples, nfe)

    def _round(self, samplers: Sequence[str], samples: int, nfe: int, ready: Prepared | None = None) -> list[Row]:
        ready = ready or self._prepared(samplers, samples, nfe)
        rows = swept(self._asked(samplers, samples, nfe), ready, self.console)
        if not rows:
            raise RuntimeError(f"no row: {'; '.join(ready.failures)}")
        return rows

    def _best(self, rows: Sequence[Row], samples: int, most: int) -> list[Row]:
        """Those that go on, best first: where there are intervals, whose difference from the best holds zero."""
        first: dict[float, Row] = {}  # of several names of one sampler
        for row in rows:
            first.setdefault(row.metrics[MAIN], row)
        order = [first[value] for value in sorted(first, reverse=True)]
        if samples >= FEWEST:
            comparison = Comparison(Store(_folder(self.request.out, samples), create=False))
            leads = {row.cell: comparison.difference(order[0].cell, row.cell, MAIN) for row in order[_LEAST:]}
            near = {cell for cell, lead in leads.items() if lead is None or not lead.excludes_zero}
            order = [row for place, row in enumerate(order) if place < _LEAST or row.cell in near]
        return order[:most]


def races(
    out: Path, models: Sequence[str] | None, budget: int, *, where: Sequence[str] | None = None,
    samples: int | None = None, device: str = "auto", console: Console, say: Callable[[str], object],
) -> list[Race]:  # fmt: skip
    """A race for each model, under the protocol and on the noises of its rows in a store, if it has some.

    Args:
        out: the store; where there is none the race makes it.
        models: as `bench --model` takes them; None for those of the store.
        where: which rows of the store are meant, as `results.overview.select` takes it.
        samples: of the last round, if not those of the rows.

    Raises:
        ValueError: without a model, or where the rows of one are of several protocols.
    """
    rows = Store(out, create=False).rows() if (out / "rows").is_dir() else []
    rows = [row for row in rows if MAIN in row.metrics and STATED not in row.protocol]
    known = dict.fromkeys(row.protocol.get(GIVEN, row.model) for row in rows)
    if not (models or known):
        raise ValueError(f"{out} has no row that a search could go on from: name a model with --model")
    found = []
    for name in models or known:
        mine = [row for row in rows if name in (row.model, row.protocol.get(GIVEN))]
        if mine and where:
            cells = set(select(frame_of(mine), where=where)["cell"])
            mine = [row for row in mine if row.cell in cells]
        if mine and (reason := incomparable(frame_of(mine), MAIN)):
            raise ValueError(
                f"a search would not know on which samples to go on: {reason}; choose with --where FIELD=VALUE"
            )
        asked: dict[str, Any] = {"samples": SAMPLES}
        if mine:
            seeds = [row.seed for row in mine]
            asked = mine[0].asked.model_dump() | {
                "samples": mine[0].samples, "seed": min(seeds), "seeds": max(seeds) - min(seeds) + 1,
            }  # fmt: skip
        asked |= {"samples": samples} if samples else {}
        given = mine[0].protocol.get(GIVEN, mine[0].model) if mine else name
        request = Request(**asked, model=(given,), metrics=(MAIN,), device=device, out=out)
        found.append(Race(request, budget, console, say))
    return found
