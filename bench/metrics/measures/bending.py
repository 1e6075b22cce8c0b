"""Metrics of the trajectories that a solver walks: `curvature` and `straightness`; see `bench.metrics.trajectories`."""

from __future__ import annotations

import numpy as np

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.measure import Batch, Measure, Summary, measures
from fastsample.bench.metrics.trajectories import bending
from fastsample.results.statistics import mean_of, ratio_of_means


@measures("curvature", "straightness")
class Bending(Measure):
    """Mean square deviation of the slopes from the chord, as it is or over the mean square of the chord."""

    def why_not(self, cell: Cell) -> tuple[str, str]:
        return (cell.plan.solver.name, cell.unbent) if cell.unbent else ("", "")

    def protocol(self, cell: Cell) -> dict[str, str]:
        return {"curvature": "per dimension on the linear path, states at the solver's outer times"}

    def arrays(self, cell: Cell) -> dict[str, int]:
        return dict.fromkeys(("curvature", "transport"), cell.samples)

    def recorded(self, batch: Batch) -> bool:
        return True

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return bending(*batch.states)

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        kind, bends = self.asked.metric.kind, arrays["curvature"]
        estimate = mean_of(bends) if kind == "curvature" else ratio_of_means(bends, arrays["transport"])
        return Summary({kind: estimate.value}, {kind: estimate})
