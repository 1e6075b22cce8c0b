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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics import error as measures
from fastsample.bench.metrics import frechet as bias
from fastsample.bench.metrics.error import Metric, finite
from fastsample.bench.metrics.features import Extractor
from fastsample.bench.metrics.solution import BATCH, PROBES, Reference, reference_for, solution_at
from fastsample.bench.metrics.trajectories import bending, distances, outer_states
from fastsample.bench.refusals import metric_refusal
from fastsample.bench.sampling import Sampler
from fastsample.models.denoiser import Denoiser, Recorder
from fastsample.results import statistics
from fastsample.results.comparable import FINGERPRINT
from fastsample.results.store import Row, Store
from fastsample.solvers.numerics import NUMERICS

__all__ = ["SHARD", "CellError", "Runner"]

SHARD = 256


class CellError(RuntimeError):
    """A cell that could not be computed; no row was written."""


@dataclass
class Runner:
    """Computes cells and keeps them in a store.

    Args:
        store: where rows go.
        sampler: draws the samples, on its device.
        batch_size: samples per network call; changes nothing but speed.
        metrics: with their extractors in `extractors`; a cell has those of them that say something about it.
        progress: called with the number of samples finished.
    """

    store: Store
    sampler: Sampler
    batch_size: int
    metrics: list[Metric]
    extractors: dict[str, Extractor]
    progress: Callable[[int], None] = lambda _: None
    _exact: dict[str, tuple[np.ndarray, torch.Tensor]] = field(default_factory=dict, init=False)  # last one

    def _metrics(self, cell: Cell) -> list[Metric]:
        return [metric for metric in self.metrics if not metric_refusal(metric, cell)[1]]

    def _wants(self, cell: Cell, *kinds: str) -> bool:
        return any(metric.kind in kinds for metric in self._metrics(cell))

    def _bends(self, cell: Cell) -> bool:
        """Whether the curvature of its trajectories is asked for, and there is one."""
        return self._wants(cell, "curvature", "straightness")

    def protocol(self, cell: Cell) -> dict[str, str]:
        """The facts beside the cell's own that decide its numbers."""
        facts = {
            "numerics": str(NUMERICS),
            "noise": "philox(seed, i) on the host", "uint8": measures.UINT8_RULE, "resize": "none",
            "tf32": f"matmul {torch.backends.cuda.matmul.allow_tf32}, cudnn {torch.backends.cudnn.allow_tf32}",
            "distance": "eigvalsh of the symmetric product, float64",
        }  # fmt: skip
        if cell.model.num_classes:
            facts["labels"] = _LABELS.get(cell.labels, f"classes {cell.labels} in turn")
        if cell.model.weights:
            facts["weights"] = cell.model.weights
        if cell.model.conditions:
            facts["model card"] = cell.model.conditions
        if cell.model.classifier:
            facts["classifier guidance"] = cell.model.classifier
        if cell.table:
            facts["table"] = cell.table.sha256
            facts["trained for"] = f"{cell.table.model} ({cell.table.model_sha256[:16]})" if cell.table.model else "any"
            if cell.table.training:
                facts["trained against"] = cell.table.training.reference
        for name, extractor in self._extractors(cell).items():
            facts[f"extractor[{extractor.identity}]"] = extractor.sha256
            if any(one.extractor == name and one.kind != "is" for one in self._metrics(cell)):
                facts[f"reference[{extractor.identity}]"] = extractor.reference_id
        if self._wants(cell, "psnr", "truncation"):
            reference = self.reference(cell)
            facts["psnr reference"] = f"{reference.title} ({reference.id})"
            facts |= {"reference steps": str(cell.reference_steps)} if cell.reference_steps else {}
        if self._wants(cell, "psnr"):
            facts["psnr"] = "images clamped to [-1, 1], R = 2, no rounding"
        if self._wants(cell, "truncation"):
            facts["truncation"] = "per dimension of the state at its end, unclamped"
        if self._bends(cell):
            facts["curvature"] = "per dimension on the linear path, states at the solver's outer times"
        return facts

    def reference(self, cell: Cell) -> Reference:
        """The reference solution that this cell's PSNR and truncation error are measured against."""
        device = self.sampler.device.type
        return reference_for(
            cell.model, cell.seed, cell.precision, cell.guidance, cell.labels, device, cell.reference_steps
        )

    def _solved(self, cell: Cell, indices: list[int]) -> tuple[Denoiser, torch.Tensor]:
        """What the reference solutions of these samples are made with: denoiser and start, in its precision."""
        exact = replace(cell, precision=self.reference(cell).precision)
        return self.sampler.denoiser(exact, indices), self.sampler.start(exact, indices)

    @torch.inference_mode()
    def fingerprint(self, cell: Cell) -> str:
        """That of the cell's reference; see `Reference.fingerprint`."""
        return self.reference(cell).fingerprint(*self._solved(cell, list(range(BATCH))))

    def run(self, cell: Cell) -> Row:
        """The row of a cell: from the store if it is finished, else computed and committed.

        Raises:
            CellError: where samples, images, features or a metric are not finite; its shards are dropped.
        """
        try:
            return self._run(cell)
        except FloatingPointError as error:
            shutil.rmtree(self.store.folder / "partial" / cell.identity(self.protocol(cell)), ignore_errors=True)
            raise CellError(f"{cell}: {error}; no row was written") from error

    def _run(self, cell: Cell) -> Row:
        protocol = self.protocol(cell)
        key = cell.identity(protocol)
        if finished := self.store.finished(key):
            self.progress(cell.samples)
            return finished
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
        # The reference's cost is no metric's.
        bound = self.accuracy(cell) if self._wants(cell, "psnr", "truncation") else None
        judge = {} if bound is None else {FINGERPRINT: self.fingerprint(cell)}
        curve = self.truncation_curve(cell) if self._wants(cell, "truncation") and not cell.unbent else {}
        begin = time.perf_counter()
        values, estimates = self._summarise(cell, arrays)
        sums["metrics"] += time.perf_counter() - begin
        values |= {} if bound is None else {"psnr_reference": bound}
        errors = {name: estimate.standard_error for name, estimate in estimates.items()}
        for name, value in [*values.items(), *((f"the standard error of {name}", e) for name, e in errors.items())]:
            finite(f"{name} is", np.array(value))
        row = Row(
            cell=key, version=2, model=cell.model.id, checkpoint_sha256=cell.model.sha256, solver=cell.plan.solver.name,
            title=cell.plan.solver.title, options=cell.options, grid=str(cell.plan.grid),
            own_grid=str(cell.plan.grid if cell.table else cell.plan.solver.default_grid(cell.model.path)),
            times=list(cell.plan.times),
            nfe_asked=cell.plan.nfe,
            nfe=round(sums["nfe"] / cell.samples),
            nfe_mean=sums["nfe"] / cell.samples if cell.plan.solver.adaptive else None,
            nfe_max=int(arrays["evaluations"].max()) if cell.plan.solver.adaptive else None,
            forwards=round(sums["forwards"] / cell.samples),
            classifier_calls=round(sums["nfe"] / cell.samples) if cell.model.classifier else 0,
            guidance=cell.guidance, samples=cell.samples, seed=cell.seed, precision=cell.precision,
            device=self.sampler.device_name, metrics=values,
            standard_errors=errors,
            seconds={
                "network": sums["network"], "solver": sums["sampling"] - sums["network"], "metrics": sums["metrics"],
                "total": sums["sampling"] + sums["metrics"],
            },
            protocol=protocol | judge, versions=_versions(),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )  # fmt: skip
        influences = {f"influence[{name}]": one.parts[0] for name, one in estimates.items() if name != "psnr"}
        self.store.finish(row, arrays | influences | curve)
        return row

    @torch.inference_mode()
    def _shard(self, cell: Cell, shard: int) -> dict[str, np.ndarray]:
        """Sample and measure one shard."""
        first = shard * SHARD
        everything = list(range(first, min(first + SHARD, cell.samples)))
        network = self.sampler.network(cell)
        wanted, bends = self._wants(cell, "psnr", "truncation"), self._bends(cell)
        reference = self._references(cell, shard, len(everything)) if wanted else None
        out: dict[str, list[np.ndarray]] = {}
        seconds = dict.fromkeys(("sampling", "network", "metrics"), 0.0)
        evaluations = calls = 0
        if network is not None:
            network.seconds()
        for low in range(0, len(everything), self.batch_size):
            indices = everything[low : low + self.batch_size]
            begin = time.perf_counter()
            if bends:
                recorder, start = self._record(cell, indices)
                x = cell.plan(recorder, start)
                finite("the network or the solver returned", x)
                made, forwards = recorder.evaluations(len(indices)), recorder.forwards
            else:
                x, made, forwards = self.sampler.sample(cell, indices)
            evaluations += sum(made)
            calls += forwards * sum(made)
            if network is not None:
                seconds["network"] += network.seconds()
            middle = time.perf_counter()
            seconds["sampling"] += middle - begin
            found = self._measure(cell, x, None if reference is None else reference[low : low + len(x)])
            found |= bending(*outer_states(cell.plan, start, recorder, x)) if bends else {}
            found |= {"evaluations": np.array(made)} if cell.plan.solver.adaptive else {}
            for name, value in found.items():
                finite(f"{name} of some sample is", value)
                out.setdefault(name, []).append(value)
            seconds["metrics"] += time.perf_counter() - middle
            self.progress(len(indices))
        arrays = {name: np.concatenate(values) for name, values in out.items()}
        return arrays | {k: np.float64(v) for k, v in {**seconds, "nfe": evaluations, "forwards": calls}.items()}  # type: ignore[return-value]

    def _extractors(self, cell: Cell) -> dict[str, Extractor]:
        """Those that the metrics of the cell need."""
        needed = {metric.extractor for metric in self._metrics(cell)}
        return {name: extractor for name, extractor in self.extractors.items() if name in needed}

    def _measure(self, cell: Cell, x: torch.Tensor, reference: torch.Tensor | None) -> dict[str, np.ndarray]:
        """Per-sample arrays of one batch of results, with their reference solutions; decoded where they are latents."""
        arrays: dict[str, np.ndarray] = {}
        images = self.sampler.images(cell, x)
        if reference is not None and self._wants(cell, "psnr"):
            arrays["psnr"] = measures.psnr_values(images, self.sampler.images(cell, reference))
        if reference is not None and self._wants(cell, "truncation"):
            arrays["truncation"] = measures.square_errors(x, reference)
        for name, extractor in self._extractors(cell).items():
            features, logits = extractor(measures.to_uint8(images))
            arrays[f"features[{name}]"], arrays[f"logits[{name}]"] = features, logits
        return arrays

    def _references(self, cell: Cell, shard: int, count: int) -> torch.Tensor:
        """The reference solutions of the first `count` samples of a shard, on the device."""
        reference = self.reference(cell)
        first = shard * SHARD // BATCH
        parts = []
        for batch in range(first, first + -(-count // BATCH)):
            indices = list(range(batch * BATCH, (batch + 1) * BATCH))
            arrays = reference.batch(batch, *self._solved(cell, indices))
            parts.append(solution_at(cell.plan.end, cell.plan.path, **arrays).to(self.sampler.device))
        found = torch.cat(parts)[:count]
        finite("the reference solution holds", found)
        return found

    @torch.inference_mode()
    def accuracy(self, cell: Cell) -> float:
        """PSNR in dB between the reference and a run with half its steps; see `bench.metrics.solution`."""
        return self.reference(cell).accuracy(*self._solved(cell, list(range(PROBES))), cell.model.decode)

    @torch.inference_mode()
    def truncation_curve(self, cell: Cell) -> dict[str, np.ndarray]:
        """The error along the way, over the first `PROBES` samples of the seed whatever the cell has.

        At each outer time of the solver, in `truncation_times` [k] of the linear path, `truncation_curve` [k] is the
        root mean square distance per dimension of its states from the reference trajectory of the same noise, in z
        of that path. Over all samples it would cost the reference again for each cell: of it only ends are cached.
        """
        indices = list(range(PROBES))
        reference = self.reference(cell)
        if reference.id not in self._exact:
            self._exact = {reference.id: reference.trajectory(*self._solved(cell, indices))}
        recorder, start = self._record(cell, indices)
        times, z = outer_states(cell.plan, start, recorder, cell.plan(recorder, start))
        errors = distances(times, z, self._exact[reference.id])
        return {"truncation_times": times, "truncation_curve": np.sqrt(errors.mean(1))}

    def _record(self, cell: Cell, indices: list[int]) -> tuple[Recorder, torch.Tensor]:
        return Recorder(self.sampler.denoiser(cell, indices)), self.sampler.start(cell, indices)

    def _summarise(
        self, cell: Cell, arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, float], dict[str, statistics.Estimate]]:
        """All values, and with the effect of each sample those that have a standard error."""
        values: dict[str, float] = {}
        estimates: dict[str, statistics.Estimate] = {}
        if self._wants(cell, "psnr"):
            values |= measures.summarise_psnr(arrays["psnr"])
            estimates["psnr"] = statistics.mean_of(arrays["psnr"])
        if self._wants(cell, "truncation"):
            estimates["truncation"] = statistics.root_of_mean(arrays["truncation"])
        if self._wants(cell, "curvature"):
            estimates["curvature"] = statistics.mean_of(arrays["curvature"])
        if self._wants(cell, "straightness"):
            estimates["straightness"] = statistics.ratio_of_means(arrays["curvature"], arrays["transport"])
        values |= {name: one.value for name, one in estimates.items() if name != "psnr"}
        for name, extractor in self._extractors(cell).items():
            features, moments = arrays[f"features[{name}]"], extractor.moments
            mine = {one.kind: one.name(cell.samples) for one in self._metrics(cell) if one.extractor == name}
            direct = [kind for kind in mine if not kind.endswith("-inf")]
            result = extractor.metrics(direct, features, arrays[f"logits[{name}]"])
            values |= {mine[kind]: result[kind] for kind in direct}
            for kind, full in mine.items():
                if kind in ("fd", "fid"):
                    estimates[full] = statistics.Estimate(values[full], (bias.influence(features, moments),))
                elif kind.endswith("-inf"):
                    estimates[full] = bias.extrapolate(features, moments)
                    values[full] = estimates[full].value
        return values, estimates


_LABELS = {"random": "uniform, philox(seed, i) on the host", "balanced": "i modulo the number of classes"}
_SUMS = ("sampling", "network", "metrics", "nfe", "forwards")


def _versions() -> dict[str, str]:
    names = ("fastsample", "torch", "torchvision", "torch-fidelity", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}
