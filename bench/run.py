"""The job: cells in, rows out. Samples stream from the solver into the metrics; no image is written.

A cell is computed in shards of `SHARD` samples; each finished shard is kept in the store until the cell
is done, so an interrupted run goes on from its last shard. A row is written when all its numbers are
there and finite, and not before.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.measure import Batch, Measure, Summary, Tools
from fastsample.datasets.levels import UINT8_RULES
from fastsample.models.foreign.text import told_prompts
from fastsample.results.metrics import metric_of
from fastsample.results.row import Row
from fastsample.results.store import Store
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.spec import Spec

__all__ = ["SHARD", "CellError", "Runner"]

SHARD = 256


class CellError(RuntimeError):
    """A cell that could not be computed; no row was written."""


@dataclass
class Runner:
    """Computes cells and keeps them in a store.

    Args:
        store: where rows go.
        tools: of the measures, with the sampler.
        batch_size: samples per network call; changes nothing but speed.
        measures: a cell has those of them that say something about it.
        progress: called with the number of samples finished.
    """

    store: Store
    tools: Tools
    batch_size: int
    measures: list[Measure]
    progress: Callable[[int], None] = lambda _: None

    def of(self, cell: Cell) -> list[Measure]:
        """The measures that say something about a cell."""
        return [measure for measure in self.measures if not measure.why_not(cell)[1]]

    def facts(self, cell: Cell) -> dict[str, str]:
        """The facts beside the cell's own that decide its numbers: the protocol of its row."""
        model, table, asked = cell.model, cell.table, cell.protocol
        facts = {
            "numerics": str(NUMERICS),
            "noise": "philox(seed, i) on the host",
            "uint8": UINT8_RULES[asked.uint8],
            "resize": "none",
            "tf32": f"matmul {torch.backends.cuda.matmul.allow_tf32}, cudnn {torch.backends.cudnn.allow_tf32}",
            "distance": "eigvalsh of the symmetric product, float64",
            "labels": _LABELS.get(asked.labels, f"classes {asked.labels} in turn") if model.num_classes else "",
            "weights": model.weights,
            "model card": model.conditions,
            "classifier guidance": model.classifier,
            "guide": model.guide,
            "prompts": told_prompts(model.prompts) if model.prompts else "",
        }
        if table:
            made_for = f"{table.model} ({table.model_sha256[:16]})" if table.model else "any"
            facts |= {"table": table.sha256, "trained for": made_for}
            facts |= {"trained against": table.training.reference} if table.training else {}
        for measure in self.of(cell):
            facts |= measure.protocol(cell)
        return {name: text for name, text in facts.items() if text}

    def run(self, cell: Cell) -> Row:
        """The row of a cell: from the store if it is finished, else computed and committed.

        Raises:
            CellError: where samples, images, features or a metric are not finite; its shards are dropped.
        """
        key = cell.identity(self.facts(cell))
        if finished := self.store.finished(key):
            self.progress(cell.samples)
            return finished
        try:
            return self._run(cell, key)
        except FloatingPointError as error:
            shutil.rmtree(self.store.folder / "partial" / key, ignore_errors=True)
            raise CellError(f"{cell}: {error}; no row was written") from error

    def _run(self, cell: Cell, key: str) -> Row:
        shards = self.store.shards(key)
        for index in range(-(-cell.samples // SHARD)):
            if index in shards:
                self.progress(min(SHARD, cell.samples - index * SHARD))
                continue
            shards[index] = self._shard(cell, index)
            self.store.add_shard(key, index, shards[index])
        parts = [shards[index] for index in sorted(shards)]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in _SUMS}
        sums = {name: float(sum(part[name] for part in parts)) for name in _SUMS}
        judged = _together([measure.judge(cell) for measure in self.of(cell)])
        begin = time.perf_counter()
        summary = _together([measure.estimate(cell, arrays) for measure in self.of(cell)])
        sums["metrics"] += time.perf_counter() - begin
        values = summary.values | judged.values
        errors = {name: estimate.standard_error for name, estimate in summary.estimates.items()}
        for name, value in [*values.items(), *((f"the standard error of {name}", e) for name, e in errors.items())]:
            finite(f"{name} is", np.array(value))
        solver, adaptive = cell.plan.solver, cell.plan.solver.adaptive
        row = Row(
            cell=key,
            version=3,
            model=cell.model.id,
            checkpoint_sha256=cell.model.sha256,
            solver=solver.name,
            title=solver.title,
            options=cell.options,
            settings=cell.settings,
            sampler=str(Spec(solver.name, cell.options)),
            grid=str(cell.plan.grid),
            own_grid=str(cell.plan.grid if cell.table else solver.default_grid(cell.model.path)),
            times=list(cell.plan.times),
            nfe_asked=cell.plan.nfe,
            nfe=round(sums["nfe"] / cell.samples),
            nfe_mean=sums["nfe"] / cell.samples if adaptive else None,
            nfe_max=int(arrays["evaluations"].max()) if adaptive else None,
            forwards=round(sums["forwards"] / cell.samples),
            classifier_calls=round(sums["nfe"] / cell.samples) if cell.model.classifier else 0,
            samples=cell.samples,
            seed=cell.seed,
            device=self.tools.sampler.device_name,
            metrics=values,
            standard_errors=errors,
            seconds={
                "network": sums["network"],
                "solver": sums["sampling"] - sums["network"],
                "metrics": sums["metrics"],
                "total": sums["sampling"] + sums["metrics"],
            },
            protocol=self.facts(cell) | judged.facts,
            versions=_versions(),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **cell.protocol.model_dump(),
        )
        of_each = summary.estimates.items()
        influences = {f"influence[{name}]": one.parts[0] for name, one in of_each if not metric_of(name).mean}
        self.store.finish(row, arrays | influences | judged.arrays)
        return row

    @torch.inference_mode()
    def _shard(self, cell: Cell, shard: int) -> dict[str, np.ndarray]:
        """Sample and measure one shard."""
        first, measures = shard * SHARD, self.of(cell)
        everything = list(range(first, min(first + SHARD, cell.samples)))
        network = self.tools.sampler.network(cell)
        needs = {measure.asked.metric.needs for measure in measures}
        out: dict[str, list[np.ndarray]] = {}
        sums = dict.fromkeys(_SUMS, 0.0)
        for low in range(0, len(everything), self.batch_size):
            batch = Batch(cell, everything[low : low + self.batch_size], self.tools)
            if "solution" in needs:
                _ = batch.solution  # its cost is no metric's
            if network is not None:
                network.seconds()
            begin = time.perf_counter()
            batch.sample(recorded="trajectory" in needs)
            sums["nfe"] += sum(batch.evaluations)
            sums["forwards"] += sum(batch.forwards)
            if network is not None:
                sums["network"] += network.seconds()
            middle = time.perf_counter()
            sums["sampling"] += middle - begin
            found = {"evaluations": np.array(batch.evaluations)} if cell.plan.solver.adaptive else {}
            for measure in measures:
                found |= measure.per_sample(batch)
            for name, value in found.items():
                finite(f"{name} of some sample is", value)
                out.setdefault(name, []).append(value)
            sums["metrics"] += time.perf_counter() - middle
            self.progress(len(batch.indices))
        arrays = {name: np.concatenate(values) for name, values in out.items()}
        return arrays | {name: np.array(value) for name, value in sums.items()}


_LABELS = {"random": "uniform, philox(seed, i) on the host", "balanced": "i modulo the number of classes"}
_SUMS = ("sampling", "network", "metrics", "nfe", "forwards")


def _together(parts: list[Summary]) -> Summary:
    """What several measures say as one."""
    whole = Summary()
    for part in parts:
        for name in ("values", "estimates", "arrays", "facts"):
            getattr(whole, name).update(getattr(part, name))
    return whole


def _versions() -> dict[str, str]:
    names = ("fastsample", "torch", "torchvision", "torch-fidelity", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}
