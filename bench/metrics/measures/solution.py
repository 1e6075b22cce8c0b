"""Metrics against the reference solution of the same noise: `psnr`, `snr`, `lpips` and `truncation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import psnr_values, snr_values, square_errors, summarise_psnr
from fastsample.bench.metrics.extractor_weights import LEAST_SIDE, LPIPS
from fastsample.bench.metrics.extractors import EMBEDDED, refusal
from fastsample.bench.metrics.measure import Batch, Measure, Summary, Tools, measures
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.bench.metrics.solution import PROBES
from fastsample.bench.metrics.trajectories import distances, outer_times
from fastsample.models.denoiser import Denoiser
from fastsample.results.comparable import FINGERPRINT
from fastsample.results.metrics import Asked
from fastsample.results.statistics import mean_of, root_of_mean


def solution_facts(tools: Tools, cell: Cell) -> dict[str, str]:
    """What of a cell's reference solutions decides a metric against them."""
    reference, steps = tools.reference(cell), cell.protocol.reference_steps
    facts = {"psnr reference": f"{reference.title} ({reference.id})"}
    return facts | ({"reference steps": str(steps)} if steps else {})


class _AgainstSolution(Measure):
    def protocol(self, cell: Cell) -> dict[str, str]:
        return solution_facts(self.tools, cell)

    def arrays(self, cell: Cell) -> dict[str, int]:
        return {self.array: cell.compared or cell.samples}

    @torch.inference_mode()
    def judge(self, cell: Cell) -> Summary:
        """How well the reference is known: PSNR in dB between it and a run with half its steps; its fingerprint."""
        reference = self.tools.reference(cell)

        def solved(samples: Sequence[int]) -> tuple[Denoiser, torch.Tensor]:
            return self.tools.solved(cell, samples)

        bound = reference.accuracy(solved, cell.model.decode)
        return Summary({"psnr_reference": bound}, facts={FINGERPRINT: reference.fingerprint(solved)})

    def name_of(self, cell: Cell) -> str:
        """Its full name: with the number of samples where it is measured on the first of them alone."""
        return self.asked.name(cell.samples, cell.compared or cell.samples)


@measures("psnr")
class PSNR(_AgainstSolution):
    """Mean over samples in dB, its median, and the PSNR of the pooled error."""

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"psnr": "images clamped to [-1, 1], R = 2, no rounding"}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        if not batch.compared:
            return {}
        return {"psnr": psnr_values(batch.images[: len(batch.compared)], batch.solution_images)}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        name = self.name_of(cell)
        values = summarise_psnr(arrays["psnr"])
        named = {name.replace("psnr", kind, 1): value for kind, value in values.items()}
        return Summary(named, {name: mean_of(arrays["psnr"])})


@measures("lpips")
class PerceptualDistance(_AgainstSolution):
    """Mean over samples of LPIPS, or of its form in the maps of the embedded classifier."""

    def __init__(self, asked: Asked, tools: Tools) -> None:
        super().__init__(asked, tools)
        self.name = asked.extractor  # without the digits of other weights
        if self.name not in (LPIPS, EMBEDDED):
            raise ValueError(f"lpips is on VGG-16, or lpips[{EMBEDDED}] in its form, and not on {self.name}")

    def why_not(self, cell: Cell) -> tuple[str, str]:
        model, shape = cell.model.id, cell.model.image_shape
        if len(shape) != 3 or shape[0] != 3:
            return model, f"its samples are no colour images: their shape is {shape}"
        if self.name == LPIPS and min(shape[1:]) < LEAST_SIDE:
            return model, f"LPIPS halves images four times, and these are of {shape[2]}x{shape[1]}"
        return (model, reason) if (reason := refusal(self.name, shape)) else ("", "")

    def open(self) -> str:
        from fastsample.bench.metrics.lpips import lpips_of, lpips_on_vgg16  # with torch-fidelity: seconds to import

        if self.name == EMBEDDED:
            self.seen = lpips_of(self.tools.extractor(EMBEDDED))
        else:
            try:
                self.seen = lpips_on_vgg16(self.tools.weights, self.tools.sampler.device)
            except MetricUnavailable as error:
                raise MetricUnavailable(f"{error} lpips[{EMBEDDED}], its form alone, needs no file.") from None
        self.asked = replace(self.asked, extractor=self.seen.identity)
        told = f"{self.name}: the weights are not the published files; distances in them are"
        return f"{told} lpips[{self.seen.identity}]" if self.seen.identity != self.name else ""

    def protocol(self, cell: Cell) -> dict[str, str]:
        facts = {"lpips": "images clamped to [-1, 1], at their own size, no rounding"}
        return super().protocol(cell) | facts | {f"extractor[{self.seen.identity}]": self.seen.sha256}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        if not batch.compared:
            return {}
        pair = batch.images[: len(batch.compared)], batch.solution_images
        distance = self.seen.distance(*(images.float().clamp(-1, 1) for images in pair))
        return {self.array: distance.double().cpu().numpy()}


@measures("snr")
class SNR(_AgainstSolution):
    """Mean over samples in dB."""

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"snr": "power of the reference solution over that of the error, unclamped"}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        if not batch.compared:
            return {}
        return {"snr": snr_values(batch.images[: len(batch.compared)], batch.solution_images)}


@measures("truncation")
class Truncation(_AgainstSolution):
    """Root mean square distance per dimension, at the end and along the way.

    Along the way it is measured on the first `PROBES` samples: at each outer time of the solver, in `truncation_times`
    [k] of the linear path, `truncation_curve` [k] is the root mean square distance per dimension of its states from
    the reference trajectory of the same noise, in z of that path. Over all samples it would cost the reference again
    for each cell: of it only ends are cached.
    """

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"truncation": "per dimension of the state at its end, unclamped"}

    def probes(self, cell: Cell) -> int:
        return 0 if cell.unbent else min(PROBES, cell.compared or cell.samples)

    def arrays(self, cell: Cell) -> dict[str, int]:
        return super().arrays(cell) | ({"truncation_walk": probes} if (probes := self.probes(cell)) else {})

    def recorded(self, batch: Batch) -> bool:
        return bool(batch.head(self.probes(batch.cell)))

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        if not batch.compared:
            return {}
        found = {"truncation": square_errors(batch.x[: len(batch.compared)], batch.solution)}
        if probes := batch.head(self.probes(batch.cell)):
            times, z = batch.states
            exact = self.tools.trajectory(batch.cell, probes)
            found["truncation_walk"] = distances(times, z[:, : len(probes)], exact).T
        return found

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        estimate, name = root_of_mean(arrays["truncation"]), self.name_of(cell)
        curve = {}
        if "truncation_walk" in arrays:
            squares = arrays["truncation_walk"]
            curve = {"truncation_times": outer_times(cell.plan), "truncation_curve": np.sqrt(squares.mean(0))}
        return Summary({name: estimate.value}, {name: estimate}, curve)
