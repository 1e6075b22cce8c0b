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
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.extractor_weights import given_file
from fastsample.bench.metrics.features import Extractor, data_of_exact, open_network
from fastsample.bench.metrics.reference import MetricUnavailable, ReferenceSet, of_data, reference_set
from fastsample.bench.metrics.solution import BATCH, Reference, reference_for, solution_at
from fastsample.bench.metrics.trajectories import outer_states
from fastsample.bench.sampling import Sampler
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
    """

    sampler: Sampler
    weights: Mapping[str, Path] = field(default_factory=dict)
    console: Console | None = None
    extractors: dict[str, Extractor] = field(default_factory=dict)
    _judges: dict[tuple[str, str], Extractor | str] = field(default_factory=dict)  # or why there is none
    _solutions: dict[tuple[str, int], dict[str, torch.Tensor]] = field(default_factory=dict)  # the last batch
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
        if cell.model.network is None and not cell.protocol.reference:
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
        return self.sampler.denoiser(exact, list(indices)), self.sampler.start(exact, list(indices))

    def solution(self, cell: Cell, indices: Sequence[int]) -> torch.Tensor:
        """The reference solutions of these samples at the end of the cell's plan, on the device.

        Raises:
            FloatingPointError: for one that is not finite.
        """
        reference, parts = self.reference(cell), []
        for number in range(indices[0] // BATCH, indices[-1] // BATCH + 1):
            if (reference.id, number) not in self._solutions:
                solved = self.solved(cell, range(number * BATCH, (number + 1) * BATCH))
                self._solutions = {(reference.id, number): reference.batch(number, *solved)}
            held = self._solutions[reference.id, number]
            rows = [index - number * BATCH for index in indices if index // BATCH == number]
            parts.append(solution_at(cell.plan.end, cell.plan.path, **{name: x[rows] for name, x in held.items()}))
        found = torch.cat(parts).to(self.sampler.device)
        finite("the reference solution holds", found)
        return found

    def trajectory(self, cell: Cell, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectory of these samples' reference solutions, on the linear path; see `Reference.trajectory`."""
        reference = self.reference(cell)
        key = (reference.id, *indices)
        if key not in self._walks:
            self._walks = {key: reference.trajectory(*self.solved(cell, indices))}
        return self._walks[key]


@dataclass
class Batch:
    """Some samples of a cell, in the order of their numbers, and what measures ask of them."""

    cell: Cell
    indices: list[int]
    tools: Tools
    x: torch.Tensor = field(init=False)  # the samples
    evaluations: list[int] = field(init=False)  # of each
    forwards: list[int] = field(init=False)  # network calls of each
    recorder: Recorder | None = None
    _features: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def sample(self, *, recorded: bool) -> None:
        """Draw the samples, if asked for with a record of where the solver asks the model.

        Raises:
            FloatingPointError: for a sample that is not finite.
        """
        sampler = self.tools.sampler
        self.recorder = Recorder(sampler.denoiser(self.cell, self.indices)) if recorded else None
        self.x, self.evaluations, self.forwards = sampler.sample(self.cell, self.indices, self.recorder)

    @cached_property
    def solution(self) -> torch.Tensor:
        """The reference solutions of the same noise."""
        return self.tools.solution(self.cell, self.indices)

    @cached_property
    def images(self) -> torch.Tensor:
        """The images that the samples decode to, in [-1, 1], not clipped."""
        return self.tools.sampler.images(self.cell, self.x)

    @cached_property
    def solution_images(self) -> torch.Tensor:
        """The images that the reference solutions decode to."""
        return self.tools.sampler.images(self.cell, self.solution)

    @cached_property
    def states(self) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectories of recorded samples; see `bench.metrics.trajectories.outer_states`."""
        assert self.recorder
        return outer_states(self.cell.plan, self.tools.sampler.start(self.cell, self.indices), self.recorder, self.x)

    def features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, d], logits [n, classes]) of an open extractor, float32."""
        if name not in self._features:
            self._features[name] = self.tools.extractors[name](to_uint8(self.images, self.cell.protocol.uint8))
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

    def judge(self, cell: Cell) -> Summary:
        """What does not come from the samples; the cost is no metric's."""
        return Summary()

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Arrays [n, ...] of one batch."""
        raise NotImplementedError

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        """The values, from the arrays of all samples; by default the mean of that with the metric's name."""
        name = self.asked.name(cell.samples)
        return Summary({name: float(arrays[name].mean())}, {name: mean_of(arrays[name])})


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
