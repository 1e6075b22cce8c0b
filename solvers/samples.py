"""Sums over each sample of a batch, for solvers whose coefficients depend on the samples.

A batch is a tensor [batch, ...], or a float64 array of that shape where a plan tries its coefficients on numbers. What
is computed of one sample depends on no other, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["each", "inner", "norms", "quotient"]


def inner(a: Any, b: Any, kept: int = 1) -> np.ndarray:
    """Inner products of a and b over all but the first `kept` axes, float64 on the host."""
    sums = (a * b).reshape(*a.shape[:kept], -1)
    while (n := sums.shape[-1]) > 1:  # by halves: a library's sum over the rows of a batch is rounded as it is long
        odd = sums[..., -1:]
        sums = sums[..., : n // 2] + sums[..., n // 2 : n - n % 2]
        if n % 2:
            sums[..., :1] += odd
    sums = sums[..., 0]
    return sums if isinstance(sums, np.ndarray) else sums.double().cpu().numpy()


def norms(x: Any) -> np.ndarray:
    """The Euclidean norm of each sample [batch]."""
    return np.sqrt(inner(x, x))


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def each(values: Any, x: Any) -> Any:
    """Numbers of the samples (and of their channels), or one for all, in the shape that x can be multiplied with."""
    values = np.asarray(values, float)
    values = values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))
    return x.new_tensor(values) if hasattr(x, "new_tensor") else values
