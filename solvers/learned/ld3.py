"""LD3 (arXiv 2405.15506): a fixed solver at learned times, whose evaluations may be at times of their own.

Of logits p [n + 1] and offsets q [n + 1], with e = softmax(p), c = cumsum(e) and the interval from T to 0,

    mode time      u_i = c_i without its first, from 0 to 1 backwards;   t_i = t_0 + u_i (t_T - t_0)
    mode lambda    the same u forwards;                                  lambda_i = lambda_T + u_i (lambda_0 - lambda_T)
    offsets        the evaluation at t_i (or lambda_i) is moved by clip(q_i, -m, m), but for the first,
                   m = w min_i |t_{i+1} - t_i|

The solver's coefficients are of the t_i alone: it takes what the network says at the moved time, data prediction or
noise prediction, for what it would have said at its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser, Prediction, Wrapped
from fastsample.models.path import Path
from fastsample.solvers.plan import Plan
from fastsample.solvers.table import Table, trace_function

__all__ = ["EvaluatedAt", "decoupled", "ld3_times"]

Mode = Literal["time", "lambda"]


class EvaluatedAt(Wrapped):
    """Another denoiser, whose k-th evaluation is made at the k-th of these times, whatever time is asked for."""

    def __init__(self, base: Denoiser, times: Sequence[float]) -> None:
        super().__init__(base)
        self._times = iter(times)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return self.base.combine(x, next(self._times), p, r)


def ld3_times(
    path: Path, logits: np.ndarray, offsets: np.ndarray, mode: Mode, window: float = 0.5, *, official: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The times [n + 1] of the steps and those [n + 1] of the evaluations, the last of which is none.

    Args:
        logits, offsets: p and q, `params1` and `params2` of a checkpoint.
        window: w.
        official: m of mode lambda from the gaps of the logits themselves, as the released code has it.

    Raises:
        ValueError: for mode lambda where lambda is infinite at an end of the path.
    """
    sums = np.cumsum(np.exp(logits - np.max(logits)))
    first, last = path.t_noise, path.t_data
    if mode == "time":
        sums = sums[::-1]
        values = last + (sums - sums[-1]) / (sums[0] - sums[-1]) * (first - last)
    else:
        low, high = path.lam(first), path.lam(last)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"lambda is infinite at an end of the {path.name} path: its times are learned in mode time"
            )
        values = low + (sums - sums[0]) / (sums[-1] - sums[0]) * (high - low)
    gaps = np.diff(np.asarray(logits, float) if official and mode == "lambda" else values)
    most = window * np.abs(gaps).min()
    moved = values + np.clip(offsets, -most, most)
    moved[[0, -1]] = values[[0, -1]]
    if mode == "time":
        return values, moved
    times, moved = (np.array([path.t_of_lam(float(lam)) for lam in one]) for one in (values, moved))
    return times, moved


def decoupled(
    plan: Plan, times: Sequence[float] | np.ndarray, evaluations: Sequence[float] | np.ndarray, coordinate: Prediction
) -> Table:
    """The table of a plan at other outer times, on the path that it integrates on, with evaluations at times of theirs.

    Args:
        evaluations: on the model's path, one for each call.
    """
    changed = replace(plan, times=tuple(map(float, times)))
    at = [float(t) for t in evaluations]
    return trace_function(
        plan.path, coordinate, lambda model, x, noise: changed(EvaluatedAt(model, at), x, noise), changed.end
    )
