"""EPD (arXiv 2507.14797) and AdaSDE (arXiv 2510.23285): K parallel slopes a step, with numbers that no sample decides.

From the level s to t, with d the slope at s and for each point k numbers r in (0, 1), w that sum to 1, c and a,

    m_k = t^r_k s^(1 - r_k),    x_k = x + (m_k - s) d,    x' = x + (t - s) sum_k w_k c_k (x_k - D(x_k; a_k m_k)) / m_k

The plugin takes iPNDM's combination of d and the slopes d of the steps before in place of d. AdaSDE first raises s to
(1 + gamma) s by fresh noise. With afs the first d is x / sqrt(1 + s^2). K parallel evaluations are K in the budget; the
depth is two a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.solvers.adams import combine, equal_weights
from fastsample.solvers.imported.space import Ask, Space
from fastsample.solvers.table import Table

__all__ = ["Points", "Raw", "adasde_points", "epd_points", "epd_table"]


# r_params, weight_s, scale_dir_params and scale_time_params of a file, all [N, K].
Raw = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Points:
    """The numbers of N steps of K points, all [N, K]; gamma [N] is 0 but for AdaSDE."""

    r: np.ndarray
    weight: np.ndarray
    direction: np.ndarray
    time: np.ndarray
    gamma: np.ndarray


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def epd_points(raw: Raw, scale_dir: float, scale_time: float, fcn: bool = False) -> Points:
    """The points of the numbers of a file: c = 1 + scale_dir (2 sigmoid(z / 2) - 1), a likewise.

    Args:
        fcn: c is 1 in the last step.
    """
    r, weight, direction, time = raw
    c, a = (1 + s * (2 * _sigmoid(z / 2) - 1) for z, s in ((direction, scale_dir), (time, scale_time)))
    if fcn:
        c[-1] = 1.0
    return Points(_sigmoid(r), _softmax(weight), c, a, np.zeros(len(r)))


def adasde_points(
    raw: Raw, scale_dir: float, scale_time: float, gamma: np.ndarray, gamma_max: float, gamma_min: float = 2e-4
) -> Points:
    """The same for AdaSDE: c = 1 + scale_dir tanh(z / 2), a likewise; gamma is 0 in the first step."""
    r, weight, direction, time = raw
    w = _softmax(weight)
    c, a = (1 + s * np.tanh(z / 2) for z, s in ((direction, scale_dir), (time, scale_time)))
    raised = gamma_min + (gamma_max - gamma_min) * _sigmoid((gamma + 2 * math.log(0.6 / 0.4)) / 2)
    return Points(_sigmoid(r), w, c, a, np.append(0.0, (w * raised).sum(1)[1:]))


def epd_table(space: Space, levels: Sequence[float], points: Points, afs: bool, plugin_order: int = 0) -> Table:
    """The table of the steps over these levels, (1 + K) evaluations each.

    Args:
        plugin_order: the highest order of iPNDM; 0 for EPD itself.

    Raises:
        ValueError: for numbers of another count of steps.
    """
    n, k = points.r.shape
    if n != len(levels) - 1:
        raise ValueError(f"{len(levels) - 1} steps take as many rows of numbers, not {n}")

    def step(ask: Ask, x: Any, noise: Any) -> Any:
        slopes: list[Any] = []  # newest first
        for i, (s, t) in enumerate(pairwise(levels)):
            if points.gamma[i]:
                before, s = s, s * (1 + float(points.gamma[i]))
                x = x + math.sqrt(s**2 - before**2) * noise(i)
            d = x / math.sqrt(1 + s**2) if afs and i == 0 else (x - ask(x, s)) / s
            slopes = [d, *slopes][: max(plugin_order, 1)]
            along, total = combine(equal_weights(len(slopes)), slopes), 0.0
            for j in range(k):
                m = t ** points.r[i, j] * s ** (1 - points.r[i, j])
                there = x + float(m - s) * along
                slope = (there - ask(there, float(points.time[i, j] * m))) / float(m)
                total = float(points.weight[i, j] * points.direction[i, j]) * slope + total
            x = x + (t - s) * total
        return x

    return space.table(step, levels[0], levels[-1])
