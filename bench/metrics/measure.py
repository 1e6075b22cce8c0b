"""How a metric is measured: batch by batch of samples, then over a cell. The runner loops over measures and knows none.

A measure is a class in a file of `bench.metrics.measures`, registered there under the kinds of `results.metrics` that
it measures. What several of them need of a batch (images, reference solutions, features) is made once, by `Batch`;
what they need of the machine (networks, extractors) is opened once, by `bench.metrics.tools`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.bench.metrics.tools import Tools
from fastsample.bench.metrics.trajectories import outer_states
from fastsample.bench.tree import Walk
from fastsample.datasets.levels import to_uint8
from fastsample.models.recorder import Recorder
from fastsample.results.metrics import Asked
from fastsample.results.statistics import Estimate, mean_of

__all__ = ["MEASURES", "Batch", "Measure", "Summary", "Tools", "available", "measures"]


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
        """How many samples of the cell, the first, have the trajectories of their reference solutions walked."""
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


def available(
    cells: list[Cell], wanted: dict[str, Asked], tools: Tools
) -> tuple[dict[str, Measure], dict[tuple[str, str], list[str]], list[str]]:
    """The measures that can be had here, by (of what, why) the metrics that cannot, and notes on the others."""
    measures: dict[str, Measure] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    notes: list[str] = []
    for text, asked in wanted.items():
        measure = MEASURES[asked.metric.kind](asked, tools)
        refusals = dict.fromkeys(measure.why_not(cell) for cell in cells)
        if ("", "") in refusals:
            try:
                if note := measure.open():
                    notes.append(note)
                refusals |= dict.fromkeys(measure.why_not(cell) for cell in cells)  # what only the opened one knows
                measures[text] = measure
            except MetricUnavailable as error:
                refusals["", str(error)] = None
        for of_what, why in refusals:
            if why:
                reasons.setdefault((of_what, why), []).append(text)
    return measures, reasons, notes
