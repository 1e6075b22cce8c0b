"""The kernel distance of CMMD (arXiv 2401.09603): MMD^2 of two sets of embeddings under a Gaussian kernel."""

from __future__ import annotations

import numpy as np

__all__ = ["mmd"]

_WIDTH = 10.0
_SCALE = 1000.0
_BLOCK = 2048  # rows and columns of the kernel matrix that are made at a time


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), k = exp(-|x - y|^2 / 200), in float64.

    The means are over all pairs, a sample with itself among them, so it is too large by O(1/n), as CMMD is published.

    Args:
        x, y: [n, d] and [m, d].
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(_SCALE * (_mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)))


def _mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for rows in _blocks(x):
        for columns in _blocks(y):
            squares = np.sum(rows**2, axis=1)[:, None] + np.sum(columns**2, axis=1) - 2 * rows @ columns.T
            total += np.exp(-squares / (2 * _WIDTH**2)).sum()
    return total / (len(x) * len(y))


def _blocks(x: np.ndarray) -> list[np.ndarray]:
    return [x[low : low + _BLOCK] for low in range(0, len(x), _BLOCK)]
