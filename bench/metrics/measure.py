"""How a metric is measured: batch by batch of samples, then over a cell. The runner loops over measures and knows none.

A measure is a class in a file of `bench.metrics.measures`, registered there under the kinds of `results.metrics` that
it measures. What several of them need of a batch (images, reference solutions, features) is made once, by `Batch`;
what they need of the machine (networks, extractors) is opened once, by `Tools`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from fastsample.bench.cells import Cell
from fastsample.bench.ledger import Ledger
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.extractor_weights import given_file
from fastsample.bench.metrics.features import Extractor, data_of_exact, open_network
from fastsample.bench.metrics.reference import MetricUnavailable, ReferenceSet, of_data, reference_set
from fastsample.bench.metrics.solution import BATCH, Reference, reference_for, solution_at
from fastsample.bench.metrics.trajectories import outer_states
from fastsample.bench.sampling import Sampler
from fastsample.bench.tree import Walk
from fastsample.datasets.levels import to_uint8
from fastsample.models.denoiser import Denoiser
from fastsample.models.recorder import Recorder
from fastsample.results.metrics import Asked
from fastsample.results.statistics import Estimate, mean_of

__all__ = ["MEASURES", "Batch", "Measure", "Summary", "Tools", "measures"]


@dataclass
class Tools:
    """What the measures of a run share.

    Attributes:
        sampler: draws the samples, on its device.
        weights: files of the weights of extractors by name; of others they are looked for where they belong.
        console: where the progress of downloads is shown.
        extractors: those that are open, by name.
        ledger: of the network calls that are made with them.
    """

    sampler: Sampler
    weights: Mapping[str, Path] = field(default_factory=dict)
    console: Console | None = None
    extractors: dict[str, Extractor] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    _judges: dict[tuple[str, str], Extractor | str] = field(default_factory=dict)  # or why there is none
    _solutions: dict[tuple[str, int], dict[str, torch.Tensor]] = field(default_factory=dict)  # of the last batch
    _walks: dict[tuple[object, ...], tuple[np.ndarray, torch.Tensor]] = field(default_factory=dict)  # the last one

    def extractor(self, name: str) -> Extractor:
        """The extractor of that name; see `open_network` for what it raises."""
        if name not in self.extractors:
            self.extractors[name] = open_network(name, self.sampler.device, given_file(name, self.weights))
        return self.extractors[name]

    def reference_of(self, name: str, cell: Cell) -> ReferenceSet:
        """The reference set of a cell's samples; the exact models have no data, and are compared with any.

        Raises:
            MetricUnavailable: if there is none.
        """
        if cell.model.exact and not cell.protocol.reference:
            return of_data(data_of_exact(name))
        return reference_set(cell.protocol.reference, cell.model, self.console)

    def judge(self, name: str, cell: Cell) -> Extractor:
        """An extractor with the reference set of a cell's samples.

        Raises:
            MetricUnavailable: if its weights or its reference cannot be had.
        """
        reference = self.reference_of(name, cell)
        key = name, reference.id
        if key not in self._judges:
            try:
                self._judges[key] = self.extractor(name).against(reference)
            except MetricUnavailable as error:
                self._judges[key] = str(error)
        if isinstance(judge := self._judges[key], str):
            raise MetricUnavailable(judge)
        return judge

    def reference(self, cell: Cell) -> Reference:
        """The reference solutions that a cell's samples are measured against."""
        return reference_for(cell.model, cell.seed, cell.protocol, self.sampler.device.type)

    def solved(self, cell: Cell, indices: Sequence[int]) -> tuple[Denoiser, torch.Tensor]:
        """What the reference solutions of these samples are made with: denoiser and start, in its precision."""
        precision = {"precision": self.reference(cell).precision}
        exact = replace(cell, protocol=cell.protocol.model_copy(update=precision))
        denoiser = self.ledger.counting(self.sampler.denoiser(exact, list(indices)), "references")
        return denoiser, self.sampler.start(exact, list(indices))

    def solution(self, cell: Cell, indices: Sequence[int]) -> torch.Tensor:
        """The reference solutions of these samples at the end of the cell's plan, on the device.

        What is not in the cache is solved in batches of as many samples, and at least of one file of the cache.

        Raises:
            FloatingPointError: for one that is not finite.
        """
        reference = self.reference(cell)
        numbers = range(indices[0] // BATCH, indices[-1] // BATCH + 1)
        if any((reference.id, number) not in self._solutions for number in numbers):
            at_once = max(1, len(indices) // BATCH)
            found = reference.batches(numbers, lambda samples: self.solved(cell, samples), at_once)
            self._solutions = {(reference.id, number): arrays for number, arrays in found.items()}
        parts = []
        for number in numbers:
            held = self._solutions[reference.id, number]
            rows = [index - number * BATCH for index in indices if index // BATCH == number]
            parts.append(solution_at(cell.plan.end, cell.plan.path, **{name: x[rows] for name, x in held.items()}))
        whole = torch.cat(parts).to(self.sampler.device)
        finite("the reference solution holds", whole)
        return whole

    def trajectory(self, cell: Cell, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectory of these samples' reference solutions, on the linear path; see `Reference.trajectory`."""
        reference = self.reference(cell)
        key = (reference.id, *indices)
        if key not in self._walks:
            self._walks = {key: reference.trajectory(*self.solved(cell, indices))}
        return self._walks[key]


@dataclass
class Batch:
    """Some samples of a cell, in the order of their numbers, and what measures ask of them.

    Attributes:
        x: the samples [n, ...], on the device.
        walk: where the solver asked the model, if a measure needs it.
    """

    cell: Cell
    indices: Sequence[int]
    tools: Tools
    x: torch.Tensor = field(init=False)
    walk: Walk | Recorder | None = None
    _features: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def sample(self, *, recorded: bool) -> None:
        """Draw the samples alone, if asked for with a record of where the solver asks the model.

        Raises:
            FloatingPointError: for a sample that is not finite.
        """
        indices, sampler = list(self.indices), self.tools.sampler
        self.walk = Recorder(sampler.denoiser(self.cell, indices)) if recorded else None
        self.x, *_ = sampler.sample(self.cell, indices, self.walk)

    def head(self, most: int) -> Sequence[int]:
        """Those of its samples that are among the first so many of the cell."""
        return self.indices[: max(0, most - self.indices[0])]

    @cached_property
    def compared(self) -> Sequence[int]:
        """Those of its samples that are compared with reference solutions."""
        return self.head(self.cell.compared or self.cell.samples)

    @cached_property
    def solution(self) -> torch.Tensor:
        """The reference solutions of the same noise, of those that are compared."""
        return self.tools.solution(self.cell, self.compared)

    @cached_property
    def images(self) -> torch.Tensor:
        """The images that the samples decode to, in [-1, 1], not clipped."""
        return self.tools.sampler.images(self.cell, self.x)

    @cached_property
    def levels(self) -> torch.Tensor:
        """The images as uint8, by the rule of the cell."""
        return to_uint8(self.images, self.cell.protocol.uint8)

    @cached_property
    def solution_images(self) -> torch.Tensor:
        """The images that the reference solutions decode to."""
        return self.tools.sampler.images(self.cell, self.solution)

    @cached_property
    def states(self) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectories of recorded samples; see `bench.metrics.trajectories.outer_states`."""
        assert self.walk
        start = self.tools.sampler.start(self.cell, list(self.indices))
        return outer_states(self.cell.plan, start, self.walk, self.x)

    def features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, d], logits [n, classes]) of an open extractor, float32."""
        if name not in self._features:
            self._features[name] = self.tools.extractors[name](self.levels)
        return self._features[name]


@dataclass(frozen=True)
class Summary:
    """What a measure says of a cell.

    Attributes:
        values: by full name.
        estimates: of those with a standard error: the effect of each sample on them.
        arrays: to keep with the cell beside those of its samples.
        facts: that its row's protocol tells and that do not decide the numbers.
    """

    values: dict[str, float] = field(default_factory=dict)
    estimates: dict[str, Estimate] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


class Measure:
    """How one metric is measured.

    Args:
        asked: the metric, with its extractor.
        tools: of the run.
    """

    def __init__(self, asked: Asked, tools: Tools) -> None:
        self.asked, self.tools = asked, tools

    def why_not(self, cell: Cell) -> tuple[str, str]:
        """(of what, why): the model, solver or number of samples for which it says nothing; ("", "") if it does."""
        return "", ""

    def open(self) -> str:
        """Make ready what it needs of this machine; returns what a reader must know of it, "" for nothing.

        Raises:
            MetricUnavailable: if that is not here.
        """
        return ""

    def protocol(self, cell: Cell) -> dict[str, str]:
        """The facts beside the cell's own that decide its numbers."""
        return {}

    def arrays(self, cell: Cell) -> dict[str, int]:
        """What `per_sample` gives: by name of how many samples of the cell, which are the first."""
        return {self.array: cell.samples}

    def made(self, cell: Cell) -> dict[str, str]:
        """What decides its arrays, beside the samples."""
        return self.protocol(cell) | {"uint8": cell.protocol.uint8}

    def width(self, cell: Cell) -> int:
        """Bytes of what it keeps of a sample while the cell is unfinished."""
        return 0

    def recorded(self, batch: Batch) -> bool:
        """Whether it needs to know where the solver asked the model for these samples."""
        return False

    def probes(self, cell: Cell) -> int:
        """Samples of the cell, the first, of which it walks the trajectories of the reference solutions."""
        return 0

    def judge(self, cell: Cell) -> Summary:
        """What does not come from the samples, cached where it costs network calls; the cost is no metric's."""
        return Summary()

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Arrays [n, ...] of one batch, each of those of its samples that `arrays` has."""
        raise NotImplementedError

    @property
    def array(self) -> str:
        """The name of its array: its full name, but for a number of samples."""
        return self.asked.name(0).partition("@")[0]

    def name_of(self, cell: Cell) -> str:
        """Its full name."""
        return self.asked.name(cell.samples)

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        """The values, from the arrays of all samples; by default the mean of its own."""
        values = arrays[self.array]
        return Summary({self.name_of(cell): float(values.mean())}, {self.name_of(cell): mean_of(values)})


MEASURES: dict[str, type[Measure]] = {}


def measures(*kinds: str) -> Callable[[type[Measure]], type[Measure]]:
    """Register a class under the kinds of metric that it measures.

    Raises:
        ValueError: for a kind that is measured already.
    """

    def decorate(measure: type[Measure]) -> type[Measure]:
        for kind in kinds:
            if kind in MEASURES:
                raise ValueError(f"metric {kind} is measured twice")
            MEASURES[kind] = measure
        return measure

    return decorate
