"""What one device does: samples of cells, and what is measured of each. It knows no store.

Cells of one group start from the same noise on the same model, so their batches are walked as one tree. What comes out
for a cell does not depend on the cells beside it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite, psnr_values
from fastsample.bench.metrics.measure import Batch, Measure, Tools
from fastsample.bench.timing import arithmetic, fitting, waited
from fastsample.bench.tree import Tree, Walk
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import step_noise
from fastsample.models.recorder import Recorder

__all__ = ["BATCH", "COUNTS", "ROUNDING", "SECONDS", "Arrays", "Worker"]

Arrays = dict[str, np.ndarray]
ROUNDING = "float32"  # array of a part: PSNR in dB of samples in a shorter format from those in float32
BATCH = 64  # samples of a network call on a CPU
_FEW = 8  # samples on which the memory of a network call is measured
_PROBES, _SHORT = 64, ("tf32", "bf16", "fp16")
COUNTS = ("evaluations", "forwards")  # arrays of a part; where the samples do not decide them, not needed
SECONDS = ("network", "solver", "metrics")  # of the array `seconds` of a part, for each sample


def _out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches can help."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


@dataclass
class Worker:
    """Measures cells on one device.

    Args:
        tools: of the measures, with the sampler.
        measures: a cell has those of them that say something about it.
        images: also give the images of samples.
        batch_size: samples of a part; None for the usual number on a CPU, and for what fits on a GPU.
    """

    tools: Tools
    measures: list[Measure]
    images: bool = False
    batch_size: int | None = None
    _model: Model | None = None  # of the job before
    _tree: tuple[tuple[str, ...], Tree] | None = None  # of the job before, with its cells
    _batch: dict[tuple[str, str], int] = field(default_factory=dict)  # by model and precision
    _costs: dict[str, tuple[int, float]] = field(default_factory=dict)  # by sampling: calls, seconds of arithmetic

    def turn_to(self, model: Model) -> None:
        """Begin a job of a model; the networks of the one before are released if it is another."""
        if self._model and (self._model.id, self._model.sha256) != (model.id, model.sha256):
            self.tools.sampler.release(self._model)
        self._model = model

    def of(self, cell: Cell) -> list[Measure]:
        """The measures that say something about a cell."""
        return [measure for measure in self.measures if not measure.why_not(cell)[1]]

    def batch(self, cell: Cell) -> int:
        """Samples of a part of a cell, all of one network call."""
        sampler, key = self.tools.sampler, (cell.model.id, cell.protocol.precision)
        if self.batch_size or sampler.device.type != "cuda":
            return self.batch_size or BATCH
        if key not in self._batch:
            with torch.inference_mode():
                self._batch[key] = fitting(
                    sampler.denoiser(cell, list(range(_FEW))), sampler.start(cell, list(range(_FEW)))
                )
        return self._batch[key]

    def names(self, cell: Cell, first: int, end: int) -> dict[str, int]:
        """The arrays of a part of a cell, samples first to end: by name of how many of them, which are the first."""
        lines = {} if cell.rows else dict.fromkeys(COUNTS, end)
        lines |= {"images": end} if self.images else {}
        lines |= {ROUNDING: min(_PROBES, cell.samples)} if cell.protocol.precision in _SHORT else {}
        for measure in self.of(cell):
            lines |= measure.arrays(cell)
        return {name: min(end, most) - first for name, most in lines.items() if most > first}

    def made(self, cell: Cell) -> dict[str, str]:
        """A hash of what decides the arrays of measures beside the samples, by name."""
        return {
            name: hashlib.sha256(repr(sorted(measure.made(cell).items())).encode()).hexdigest()[:8]
            for measure in self.of(cell)
            for name in measure.arrays(cell)
        }

    def width(self, cell: Cell) -> int:
        """Bytes of what is kept of a sample while the cell is unfinished, beside a few numbers."""
        return max((measure.width(cell) for measure in self.of(cell)), default=0)

    @torch.inference_mode()
    def measure(self, cells: Sequence[Cell], first: int, end: int) -> Iterator[tuple[Cell, Arrays | Exception]]:
        """The arrays of samples first to end of each cell of one group, or why there are none.

        What does not fit into memory is done in halves.

        Raises:
            Exception: where memory does not suffice for a single sample.
        """
        left = {cell.sampling: cell for cell in cells}
        try:
            if first == 0:
                self._judged(cells)
            for cell, found in self._measured(cells, range(first, end)):
                del left[cell.sampling]
                yield cell, found
        except Exception as error:
            if not _out_of_memory(error):
                raise
            if end - first < 2:
                yield from ((cell, error) for cell in left.values())
                return
            if self.tools.sampler.device.type == "cuda":
                torch.cuda.empty_cache()
            middle = (first + end) // 2
            halves = [dict(self._halved(list(left.values()), *ends)) for ends in ((first, middle), (middle, end))]
            for key, cell in left.items():
                yield cell, _joined([half[key] for half in halves])

    def _halved(self, cells: Sequence[Cell], first: int, end: int) -> Iterator[tuple[str, Arrays | Exception]]:
        for cell, found in self.measure(cells, first, end):
            smaller = {"batch": np.full(end - first, end - first, np.int32)}
            yield cell.sampling, found if isinstance(found, Exception) else smaller | found

    def _judged(self, cells: Sequence[Cell]) -> None:
        """Let every measure make what is cached of its judge; what fails there is told when the row is written."""
        for cell in cells:
            for measure in self.of(cell):
                try:
                    measure.judge(cell)
                except Exception as error:
                    if _out_of_memory(error):
                        raise

    def _measured(self, cells: Sequence[Cell], indices: range) -> Iterator[tuple[Cell, Arrays | Exception]]:
        """The same in one batch."""
        sampler, some = self.tools.sampler, cells[0]
        x = sampler.start(some, list(indices))
        noise = cache(lambda step: step_noise(some.seed, indices, some.model.shape, step).to(x))
        tabled = [cell for cell in cells if cell.rows]
        recorded = any(self._recorded(cell, indices) for cell in tabled)
        walked = self._tree_of(tabled, x.dtype).walk(
            self._denoiser(some, indices), x, noise, recorded=recorded, fatal=_out_of_memory
        )
        for leaf, found, walk in walked:
            several = [tabled[place] for place in leaf.cells]
            known: dict[str, Arrays | Exception] = {}  # of samplers of one table and protocol
            for cell in several:
                key = f"{cell.protocol}{self._recorded(cell, indices) and cell.plan.times}"
                if key not in known:
                    known[key] = found if isinstance(found, Exception) else self._of(cell, indices, found, walk)
                told = known[key]
                yield cell, told if isinstance(told, Exception) else told | self._counts(cell, indices, told, x)
        for cell in cells:
            if not cell.rows:
                yield cell, self._alone(cell, indices)

    def _tree_of(self, cells: Sequence[Cell], dtype: torch.dtype) -> Tree:
        """Of cells with tables; the parts of one group have the same one after the other."""
        key = tuple(cell.sampling for cell in cells)
        if not self._tree or self._tree[0] != key:
            self._tree = key, Tree([cell.rows for cell in cells if cell.rows], dtype)
        return self._tree[1]

    def _recorded(self, cell: Cell, indices: range) -> bool:
        return any(measure.recorded(Batch(cell, indices, self.tools)) for measure in self.of(cell))

    def _denoiser(self, cell: Cell, indices: Sequence[int]) -> Denoiser:
        products: Literal["float32", "tf32"] = "tf32" if cell.protocol.precision == "tf32" else "float32"
        return self.tools.ledger.counting(self.tools.sampler.denoiser(cell, list(indices)), "sampling", products)

    def _of(self, cell: Cell, indices: range, x: torch.Tensor, walk: Walk | Recorder | None) -> Arrays | Exception:
        """What the measures of a cell say of its samples x."""
        batch = Batch(cell, indices, self.tools, walk=walk)
        batch.x = x
        found: Arrays = {}
        try:
            finite("the network or the solver returned", x)
            against = [measure for measure in self.of(cell) if measure.asked.metric.needs == "solution"]
            if against and batch.compared:  # what is solved is no metric's cost
                _ = batch.solution
                for probes in {len(batch.head(measure.probes(cell))) for measure in against} - {0}:
                    self.tools.trajectory(cell, batch.indices[:probes])
            begin = waited(x.device)
            self.tools.ledger.at("metrics")
            for measure in self.of(cell):
                found |= measure.per_sample(batch)
            for name, value in found.items():
                finite(f"{name} of some sample is", value)
            if lines := self.names(cell, indices[0], indices[-1] + 1).get(ROUNDING):
                exact = self._exact(cell, indices[:lines])
                found[ROUNDING] = psnr_values(batch.images[:lines], self.tools.sampler.images(cell, exact))
            if self.images:
                found["images"] = batch.levels.cpu().numpy()
            seconds = np.zeros((len(indices), len(SECONDS)), np.float32)
            seconds[:, 2] = (time.perf_counter() - begin) / len(indices)
            return found | {"seconds": seconds}
        except Exception as error:
            if _out_of_memory(error):
                raise
            return error

    def _exact(self, cell: Cell, indices: Sequence[int]) -> torch.Tensor:
        """The samples of a cell in float32."""
        exact = replace(cell, protocol=cell.protocol.model_copy(update={"precision": "float32"}))
        denoiser = self.tools.ledger.counting(self.tools.sampler.denoiser(exact, list(indices)), "references")
        return self.tools.sampler.sample(exact, list(indices), denoiser)[0]

    def _counts(self, cell: Cell, indices: range, found: Arrays, x: torch.Tensor) -> Arrays:
        """Evaluations, network calls and seconds of each sample, as when the cell runs alone."""
        assert cell.rows
        if cell.sampling not in self._costs:
            denoiser = self.tools.sampler.denoiser(cell, [0])
            forwards = sum(denoiser.forwards(float(t)) for t in cell.rows.times)
            self._costs[cell.sampling] = forwards, arithmetic(cell.rows, cell.model.path, x)
        forwards, solver = self._costs[cell.sampling]
        network, seconds = self.tools.sampler.network(cell), found["seconds"].copy()
        seconds[:, 0] = forwards * network.per_sample() if network else 0.0
        seconds[:, 1] = solver
        counts = zip(COUNTS, (cell.rows.nfe, forwards), strict=True)
        return {name: np.full(len(indices), count, np.int32) for name, count in counts} | {"seconds": seconds}

    def _alone(self, cell: Cell, indices: range) -> Arrays | Exception:
        """A cell without a table: its solver's steps depend on the samples, or are too many."""
        sampler = self.tools.sampler
        denoiser, network = self._denoiser(cell, indices), sampler.network(cell)
        walk = Recorder(denoiser) if self._recorded(cell, indices) else None
        try:
            begin = waited(sampler.device)
            x, evaluations, forwards = sampler.sample(cell, list(indices), walk or denoiser)
            total = waited(sampler.device) - begin
        except Exception as error:
            if _out_of_memory(error):
                raise
            return error
        found = self._of(cell, indices, x, walk)
        if isinstance(found, Exception):
            return found
        seconds = found["seconds"]
        seconds[:, 0] = np.array(forwards) * (network.per_sample() if network else 0.0)
        seconds[:, 1] = max(0.0, total - float(seconds[:, 0].sum())) / len(indices)
        counts = zip(COUNTS, (evaluations, forwards), strict=True)
        return found | {name: np.array(count, np.int32) for name, count in counts}


def _joined(halves: list[Arrays | Exception]) -> Arrays | Exception:
    """The arrays of two halves as one; of one that failed why."""
    whole: Arrays = {}
    for half in halves:
        if isinstance(half, Exception):
            return half
        for name, value in half.items():
            whole[name] = np.concatenate([whole[name], value]) if name in whole else value
    return whole
