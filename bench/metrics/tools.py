"""What the measures of a run share: the sampler, extractors with their reference sets, and reference solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.ledger import Ledger
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.extractor_weights import given_file
from fastsample.bench.metrics.features import Extractor, data_of_exact, open_network
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.bench.metrics.reference import ReferenceSet, of_data, reference_set
from fastsample.bench.metrics.solution import BATCH, Reference, reference_for, solution_at
from fastsample.bench.sampling import Sampler
from fastsample.models.denoiser import Denoiser

__all__ = ["Tools"]


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
    _references: dict[tuple[str, int | None], Reference] = field(default_factory=dict)  # by group and steps
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
        key = cell.group, cell.protocol.reference_steps
        if key not in self._references:
            self._references[key] = reference_for(cell.model, cell.seed, cell.protocol, self.sampler.device.type)
        return self._references[key]

    def solved(self, cell: Cell, indices: Sequence[int]) -> tuple[Denoiser, torch.Tensor]:
        """What the reference solutions of these samples are made with: denoiser and start, in its precision."""
        precision = {"precision": self.reference(cell).precision}
        exact = replace(cell, protocol=cell.protocol.model_copy(update=precision))
        denoiser = self.ledger.counting(self.sampler.denoiser(exact, list(indices)), "references")
        return denoiser, self.sampler.start(exact, list(indices))

    def solution(self, cell: Cell, indices: Sequence[int]) -> torch.Tensor:
        """The reference solutions of these samples at the end of the cell's plan, on the device.

        What is not in the cache is solved in batches of as many samples, where they are whole files of it, or else file
        by file: whoever solves a neighbour, the same are solved together.

        Raises:
            FloatingPointError: for one that is not finite.
        """
        reference = self.reference(cell)
        numbers = range(indices[0] // BATCH, indices[-1] // BATCH + 1)
        if any((reference.id, number) not in self._solutions for number in numbers):
            aligned = len(indices) % BATCH == 0 and indices[0] % len(indices) == 0
            at_once = len(indices) // BATCH if aligned else 1
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
