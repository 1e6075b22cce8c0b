"""Metrics against the reference solution of the same noise: `psnr`, `snr` and `truncation`."""

from __future__ import annotations

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import psnr_values, snr_values, square_errors, summarise_psnr
from fastsample.bench.metrics.measure import Batch, Measure, Summary, Tools, measures
from fastsample.bench.metrics.solution import BATCH, PROBES
from fastsample.bench.metrics.trajectories import distances
from fastsample.results.comparable import FINGERPRINT
from fastsample.results.statistics import mean_of, root_of_mean


def solution_facts(tools: Tools, cell: Cell) -> dict[str, str]:
    """What of a cell's reference solutions decides a metric against them."""
    reference, steps = tools.reference(cell), cell.protocol.reference_steps
    facts = {"psnr reference": f"{reference.title} ({reference.id})"}
    return facts | ({"reference steps": str(steps)} if steps else {})


class _AgainstSolution(Measure):
    def protocol(self, cell: Cell) -> dict[str, str]:
        return solution_facts(self.tools, cell)

    @torch.inference_mode()
    def judge(self, cell: Cell) -> Summary:
        """How well the reference is known: PSNR in dB between it and a run with half its steps; its fingerprint."""
        reference = self.tools.reference(cell)
        bound = reference.accuracy(*self.tools.solved(cell, range(PROBES)), cell.model.decode)
        fingerprint = reference.fingerprint(*self.tools.solved(cell, range(BATCH)))
        return Summary({"psnr_reference": bound}, facts={FINGERPRINT: fingerprint})


@measures("psnr")
class PSNR(_AgainstSolution):
    """Mean over samples in dB, its median, and the PSNR of the pooled error."""

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"psnr": "images clamped to [-1, 1], R = 2, no rounding"}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"psnr": psnr_values(batch.images, batch.solution_images)}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        return Summary(summarise_psnr(arrays["psnr"]), {"psnr": mean_of(arrays["psnr"])})


@measures("snr")
class SNR(_AgainstSolution):
    """Mean over samples in dB."""

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"snr": "power of the reference solution over that of the error, unclamped"}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"snr": snr_values(batch.images, batch.solution_images)}


@measures("truncation")
class Truncation(_AgainstSolution):
    """Root mean square distance per dimension, at the end and along the way."""

    def protocol(self, cell: Cell) -> dict[str, str]:
        return super().protocol(cell) | {"truncation": "per dimension of the state at its end, unclamped"}

    @torch.inference_mode()
    def judge(self, cell: Cell) -> Summary:
        """Also the error along the way, over the first `PROBES` samples of the seed whatever the cell has.

        At each outer time of the solver, in `truncation_times` [k] of the linear path, `truncation_curve` [k] is the
        root mean square distance per dimension of its states from the reference trajectory of the same noise, in z
        of that path. Over all samples it would cost the reference again for each cell: of it only ends are cached.
        """
        told = super().judge(cell)
        if cell.unbent:
            return told
        walk = Batch(cell, list(range(PROBES)), self.tools)
        walk.sample(recorded=True)
        times, z = walk.states
        curve = np.sqrt(distances(times, z, self.tools.trajectory(cell, range(PROBES))).mean(1))
        return Summary(told.values, arrays={"truncation_times": times, "truncation_curve": curve}, facts=told.facts)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"truncation": square_errors(batch.x, batch.solution)}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        estimate = root_of_mean(arrays["truncation"])
        return Summary({"truncation": estimate.value}, {"truncation": estimate})
