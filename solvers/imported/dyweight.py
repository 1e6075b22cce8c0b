"""DyWeight (arXiv 2603.11607): a multistep method of learned weights and time scales, on a grid that it drifts from.

With g_0 > ... > g_N the grid, tau_0 = g_0 and slopes d_i = (x_i - D(x_i; |z_i tau_i|)) / (tau_i + 1e-8),

    x_{i+1}   = x_i + (g_{i+1} - tau_i) sum_{j<=i} W_ij d_j
    tau_{i+1} = tau_i + (g_{i+1} - tau_i) sum_{j<=i} W_ij

The rows of W need not sum to 1: the result is at tau_N. With afs d_0 = x_0 / sqrt(1 + tau_0^2) is no evaluation. On a
flow the slopes are v(x_i, z_i tau_i), the network's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsample.solvers.imported.space import Ask, Space
from fastsample.solvers.table import Table

__all__ = ["dyweight_table"]

_TINY = 1e-8  # of the released code


def dyweight_table(
    space: Space, levels: Sequence[float], weights: np.ndarray, scales: np.ndarray, afs: bool, flow: bool = False
) -> Table:
    """The table of N steps; its end is the drifted level.

    Args:
        levels: [N + 1] of the grid.
        weights: W [N, N], of which the lower triangle is taken; scales: z [N], [N - 1] with afs; [0] where all are 1.
        flow: the slopes are of a flow.

    Raises:
        ValueError: for numbers of other shapes, or that lead to a level of 0.
    """
    n = len(levels) - 1
    scales = scales if scales.size else np.ones(n - afs)
    if weights.shape != (n, n) or scales.shape != (n - afs,):
        raise ValueError(
            f"{n} steps take [{n}, {n}] weights and {n - afs} time scales, not {list(weights.shape)} and "
            f"{list(scales.shape)}"
        )
    rows = [[float(w) for w in weights[i, : i + 1]] for i in range(n)]
    taus = [levels[0]]
    for i, row in enumerate(rows):
        taus.append(taus[i] + (levels[i + 1] - taus[i]) * sum(row))
    asked = [abs(z * tau) for z, tau in zip(map(float, scales), taus[1:] if afs else taus, strict=False)]
    if not all(0 < s < math.inf for s in asked):
        raise ValueError("its weights lead to a noise level of 0, at which nothing can be asked")

    def step(ask: Ask, x: Any, noise: Any) -> Any:
        slopes: list[Any] = []
        for i, row in enumerate(rows):
            if afs and i == 0:
                slopes.append(x / math.sqrt(1 + taus[0] ** 2))
            else:
                s = asked[i - afs]
                slopes.append((x - ask(x, s)) / (s if flow else taus[i] + _TINY))
            for weight, slope in zip(row, slopes, strict=True):
                x = x + ((levels[i + 1] - taus[i]) * weight) * slope
        return x

    return space.table(step, levels[0], taus[-1])
