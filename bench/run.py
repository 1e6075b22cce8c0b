"""Parts in, rows out: what a worker has measured is kept in the store, and a cell whose parts are all there is a row.

A part of a cell is a batch of its samples. A row is written when all its numbers are there and finite, and not before.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import numpy as np

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.measure import Summary
from fastsample.bench.worker import COUNTS, ROUNDING, SECONDS, Arrays, Worker
from fastsample.datasets.levels import UINT8_RULES
from fastsample.models.foreign.text import told_prompts
from fastsample.results.metrics import metric_of
from fastsample.results.row import Row
from fastsample.results.storage.images import save_images, saved_images
from fastsample.results.store import Store
from fastsample.solvers.numerics import NUMERICS

__all__ = ["Keep", "Part", "Runner", "Save", "together", "versions"]

Part = tuple[int, int]  # samples first to end
Keep = Literal["", "features", "images"]
Save = Literal["", "png", "npz"]


@dataclass
class Runner:
    """Keeps what is measured of cells in a store.

    Args:
        store: where parts and rows go.
        worker: whose measures they are; it computes nothing here but what is cached of their judges.
        keep: arrays that stay beside the rows, for other metrics and more samples.
        devices: on which other workers have measured, in words.
        save: write the images of each cell in this form.
    """

    store: Store
    worker: Worker
    keep: Keep = ""
    devices: list[str] = field(default_factory=list)
    save: Save = ""
    _facts: dict[str, dict[str, str]] = field(default_factory=dict)
    _made: dict[str, dict[str, str]] = field(default_factory=dict)

    def facts(self, cell: Cell) -> dict[str, str]:
        """The facts beside the cell's own that decide its numbers: the protocol of its row."""
        if cell.sampling not in self._facts:
            self._facts[cell.sampling] = self.facts_of(cell, self.worker)
        return self._facts[cell.sampling]

    @staticmethod
    def facts_of(cell: Cell, worker: Worker) -> dict[str, str]:
        """The same, as a worker measures the cell."""
        model, table, asked = cell.model, cell.table, cell.protocol
        facts = {
            "numerics": str(NUMERICS),
            "noise": "philox(seed, i) on the host",
            "uint8": UINT8_RULES[asked.uint8],
            "resize": "none",
            "tf32": "on" if asked.precision == "tf32" else "off",
            "distance": "eigvalsh of the symmetric product, float64",
            "labels": _LABELS.get(asked.labels, f"classes {asked.labels} in turn") if model.num_classes else "",
            "weights": model.weights,
            "model card": model.conditions,
            "classifier guidance": model.classifier,
            "guide": model.guide,
            "solver code": cell.plan.solver.code,
            "prompts": told_prompts(model.prompts) if model.prompts else "",
            "statistics": cell.plan.statistics,
            "coefficients": "of each sample" if cell.plan.solver.nonlinear else "",
        }
        if table:
            made_for = f"{table.model} ({table.model_sha256[:16]})" if table.model else "any"
            facts |= {"table": table.sha256, "trained for": made_for}
            facts |= {"trained against": table.training.reference} if table.training else {}
        for measure in worker.of(cell):
            facts |= measure.protocol(cell)
        return {name: text for name, text in facts.items() if text}

    def finished(self, cell: Cell) -> Row | None:
        """The row of a cell, if the store has it, and its images where they are to be saved."""
        row = self.store.finished(cell.identity(self.facts(cell)))
        return row if row is None or not self.save or self._saved(cell, row.cell) else None

    def _saved(self, cell: Cell, name: str) -> bool:
        """Whether the images of a finished cell are there in their form, or can be made of parts that were kept."""
        if saved_images(self.store.folder, name, self.save).exists():
            return True
        there = self.made(cell)["images"] in self.store.parts(cell.sampling).names(0, cell.samples)
        if there:
            self._save(cell, name)
        return there

    def _save(self, cell: Cell, name: str) -> None:
        known, images = self.store.parts(cell.sampling), self.made(cell)["images"]
        save_images(
            saved_images(self.store.folder, name, self.save), cell.samples, cell.model.image_shape,
            (known.read(first, end, images) for first, end in self.parts(cell)),
        )  # fmt: skip

    def parts(self, cell: Cell) -> list[Part]:
        """The parts of a cell."""
        size = self.worker.batch(cell)
        return [(first, min(first + size, cell.samples)) for first in range(0, cell.samples, size)]

    def missing(self, cell: Cell) -> list[Part]:
        """The parts of a cell of which the store has not all arrays."""
        known, made = self.store.parts(cell.sampling), self.made(cell)
        return [
            (first, end)
            for first, end in self.parts(cell)
            for lines in (self.worker.names(cell, first, end),)
            if any(made.get(name, name) not in known.names(first, first + count) for name, count in lines.items())
        ]

    def made(self, cell: Cell) -> dict[str, str]:
        """What the store calls the arrays of measures: by name, with a hash of what decides them."""
        if cell.sampling not in self._made:
            images = {"images": f"images|{cell.protocol.uint8}"}
            made = {name: f"{name}|{how}" for name, how in self.worker.made(cell).items()}
            self._made[cell.sampling] = images | made
        return self._made[cell.sampling]

    def there(self, cell: Cell, part: Part) -> bool:
        """Whether the store has a part by now, or the row, of another process: looked at where there is a file."""
        file = self.store.folder / "partial" / cell.sampling / f"{part[0]}-{part[1]}.npz"
        return (file.exists() and part not in self.missing(cell)) or self.finished(cell) is not None

    def add(self, cell: Cell, part: Part, arrays: Arrays) -> None:
        """Keep a part that was measured."""
        made = self.made(cell)
        self.store.add_part(cell.sampling, *part, {made.get(name, name): array for name, array in arrays.items()})

    def drop(self, cell: Cell) -> None:
        """Forget the unfinished parts of a cell that has no numbers."""
        self.store.drop(cell.sampling)

    def settle(self, cell: Cell) -> Row | None:
        """The row of a cell whose parts are there: of another process by now, or committed while no other does it."""
        while True:
            with self.store.claim(cell.sampling) as mine:
                if mine:
                    return self.finished(cell) or self.commit(cell)
            time.sleep(0.1)

    def commit(self, cell: Cell) -> Row | None:
        """The row of a cell whose parts are all there; None where one is not, or not any more.

        Another process that has finished a row of the same samples has removed them, or one is damaged.

        Raises:
            FloatingPointError: where a metric is not finite.
        """
        if (arrays := self._whole(cell)) is None:
            return None
        seconds, (evaluations, forwards) = self._spent(cell, arrays)
        noted = self._noted(cell, arrays)
        measures = self.worker.of(cell)
        judged = together([measure.judge(cell) for measure in measures])
        begin = time.perf_counter()
        summary = together([measure.estimate(cell, arrays) for measure in measures])
        seconds["metrics"] += time.perf_counter() - begin
        values = summary.values | judged.values
        errors = {name: estimate.standard_error for name, estimate in summary.estimates.items()}
        for name, value in [*values.items(), *((f"the standard error of {name}", e) for name, e in errors.items())]:
            finite(f"{name} is", np.array(value))
        solver, adaptive = cell.plan.solver, cell.plan.solver.adaptive
        row = Row(
            cell=cell.identity(self.facts(cell)),
            sampling=cell.sampling,
            made={name: how for name, how in self.worker.made(cell).items() if arrays[name].ndim == 1},
            version=3,
            model=cell.model.id,
            checkpoint_sha256=cell.model.sha256,
            solver=solver.name,
            title=solver.title,
            options=cell.options,
            settings=cell.settings,
            sampler=cell.sampler,
            grid=str(cell.plan.grid),
            own_grid=str(cell.plan.grid if cell.table else solver.default_grid(cell.model.path)),
            times=list(cell.plan.times),
            nfe_asked=cell.plan.nfe,
            nfe=round(evaluations),
            nfe_mean=evaluations if adaptive else None,
            nfe_max=int(arrays["evaluations"].max()) if adaptive else None,
            forwards=round(forwards),
            classifier_calls=round(evaluations) if cell.model.classifier else 0,
            samples=cell.samples,
            seed=cell.seed,
            device=" and ".join(self.devices) or self.worker.tools.sampler.device_name,
            metrics=values,
            standard_errors=errors,
            seconds=seconds | {"total": sum(seconds.values())},
            protocol=self.facts(cell) | judged.facts | noted | cell.spelled,
            versions=versions(),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **cell.protocol.model_dump(),
        )
        of_each = summary.estimates.items()
        influences = {f"influence[{name}]": one.parts[0] for name, one in of_each if not metric_of(name).mean}
        lines = {name: array for name, array in arrays.items() if array.ndim == 1}  # features have their own place
        if self.save:
            self._save(cell, row.cell)
        self.store.finish(row, lines | influences | summary.arrays, keep=bool(self.keep))
        return row

    def _whole(self, cell: Cell) -> Arrays | None:
        """The arrays of all parts of a cell; what measures need of all samples is in memory at once."""
        known, made, whole = self.store.parts(cell.sampling), self.made(cell), Arrays()
        needed = self.worker.names(cell, 0, cell.samples)
        lines = needed | dict.fromkeys((*COUNTS, "seconds", "batch"), cell.samples)
        lines.pop("images", None)
        for name, most in lines.items():
            for first, end in self.parts(cell):
                last = min(end, most)
                if first >= last:
                    continue
                if (value := known.read(first, last, made.get(name, name))) is None and name in needed:
                    return None
                if value is not None:
                    if name not in whole:
                        whole[name] = np.zeros((most, *value.shape[1:]), value.dtype)
                    whole[name][first:last] = value
        return whole

    def _spent(self, cell: Cell, arrays: Arrays) -> tuple[dict[str, float], tuple[float, float]]:
        """Seconds for all samples; evaluations and network calls of one in the mean. They are taken out of the arrays.

        Of samples that were not drawn, since an earlier row or what is kept has all of them, it is as in that row.
        """
        counts = [arrays.pop(name, None) if cell.rows else arrays[name] for name in COUNTS]
        taken = arrays.pop("seconds", None)
        if taken is None or counts[0] is None or counts[1] is None:
            earlier = self.store.earlier(cell.sampling)
            assert earlier
            scale = cell.samples / earlier.samples
            spent = {name: scale * earlier.seconds[name] for name in SECONDS}
            return spent, (earlier.nfe_mean or earlier.nfe, earlier.forwards)
        computed = taken[taken.any(1)]
        sums = computed.sum(0, dtype=np.float64) * cell.samples / max(1, len(computed))
        mean = np.max if cell.rows else np.mean  # where all make as many
        return dict(zip(SECONDS, sums.tolist(), strict=True)), (float(mean(counts[0])), float(mean(counts[1])))

    def _noted(self, cell: Cell, arrays: Arrays) -> dict[str, str]:
        """What a row tells of how it was computed, and what does not decide its numbers."""
        facts = {"batch": f"{self.worker.batch(cell)} samples"}
        if cell.trained_on != "nothing":
            facts |= {"trained on": cell.trained_on, "found with": cell.found_with}
        if ROUNDING in arrays:
            off = arrays[ROUNDING]
            facts["precision"] = f"{off.mean():.1f} dB from float32 on {len(off)} samples"
        if (batch := arrays.pop("batch", None)) is not None:
            least = batch[batch > 0].min()
            facts["batch"] += f", down to {least} where memory did not suffice"
        return facts


_LABELS = {"random": "uniform, philox(seed, i) on the host", "balanced": "i modulo the number of classes"}


def together(parts: list[Summary]) -> Summary:
    """What several measures say as one."""
    whole = Summary()
    for part in parts:
        for name in ("values", "estimates", "arrays", "facts"):
            getattr(whole, name).update(getattr(part, name))
    return whole


def versions() -> dict[str, str]:
    """Of what decides numbers: fastsample, the libraries and Python."""
    names = ("fastsample", "torch", "torchvision", "torch-fidelity", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}
