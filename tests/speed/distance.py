"""The Frechet distance of 2,048 features, beside scipy's square root and torch-fidelity's way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from printer import Line, seconds
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_statistics_to_metric

from fastsample.bench.metrics.frechet import frechet_distance, symmetric_root

__all__ = ["lines"]

_D = 2048


def lines() -> Iterator[Line]:
    """The distance of two sets of moments; the reference's root is taken once in a process, and has its own line."""
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, _D + 1))  # as steep as the spectrum of Inception's features
    one, other = (np.cov(rng.standard_normal((3 * _D, _D)) * scales, rowvar=False) for _ in range(2))
    mean, root = np.zeros(_D), symmetric_root(other)
    ours = seconds(lambda: frechet_distance(mean, one, mean, root), 3)
    scipy = seconds(lambda: np.trace(sqrtm(one @ other)), 1)
    statistics = {"mu": mean, "sigma": one}, {"mu": mean, "sigma": other}
    fidelity = seconds(lambda: fid_statistics_to_metric(*statistics, False), 1)
    yield Line("distance, d = 2,048", ours, "`scipy.linalg.sqrtm`", scipy, "ratio 9")
    yield Line("distance, d = 2,048", ours, "torch-fidelity", fidelity, "ratio 3")
    yield Line(
        "root of the reference, d = 2,048", seconds(lambda: symmetric_root(other), 1), "torch-fidelity", fidelity
    )
