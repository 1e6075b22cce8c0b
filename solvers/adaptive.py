"""Adaptive integration: Dormand-Prince 5(4) on the velocity of the linear path.

Steps follow the error over the whole batch, so the evaluations made depend on the batch and its
composition; a budget has no say. Step control is that of scipy's RK45, which published rectified-flow
results were made with (arXiv 2209.03003), so it makes the same evaluations, on the device of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.adams import combine
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Schedule, register
from fastsample.solvers.tableau import Tableau

__all__ = ["Integration", "dopri5", "integrate_adaptively"]

# Its last stage is the result, and the first of the next step.
_DOPRI5 = Tableau(
    nodes=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    rows=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    weights=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
)
# fifth-order weights less fourth-order ones
_ERROR = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
_SMALLEST = 1e-10  # step below which the problem is given up


@dataclass(frozen=True)
class Integration:
    """An adaptive run: its result, accepted and rejected steps. It made 2 + 6 (accepted + rejected) evaluations."""

    x: Any
    accepted: int
    rejected: int


def _rms(x: Any) -> float:
    return float(x.pow(2).mean().sqrt())


def integrate_adaptively(denoiser: Denoiser, x: Any, start: float, end: float, rtol: float, atol: float) -> Integration:
    """Integrate dx/dt = u(x, t) from start to end > start; local error RMS(e / (atol + rtol max|x|)) <= 1.

    Args:
        x: tensor [batch, ...]; the norm runs over the whole of it.

    Raises:
        ValueError: for tolerances that are not positive.
        ArithmeticError: where the step falls below 1e-10 (no finite solution to the tolerance).
    """
    if rtol <= 0 or atol <= 0:
        raise ValueError(f"tolerances must be positive, not rtol={rtol}, atol={atol}")
    t, slope = start, denoiser.velocity(x, start)
    h = _first_step(denoiser, x, slope, start, end, rtol, atol)
    accepted = rejected = 0
    while t < end:
        grow = 10.0
        while True:
            if not h >= _SMALLEST:
                raise ArithmeticError(f"dopri5: the step fell to {h:g} at t = {t:g}; loosen {rtol=:g}, {atol=:g}")
            target = min(t + h, end)
            h, slopes, fresh = target - t, [slope], x
            for node, row in zip(_DOPRI5.nodes[1:], _DOPRI5.rows[1:], strict=True):
                fresh = x + combine([h * a for a in row], slopes)
                slopes.append(denoiser.velocity(fresh, t + node * h))
            scale = atol + rtol * x.abs().maximum(fresh.abs())
            error = _rms(combine([h * e for e in _ERROR], slopes) / scale)
            if error < 1:
                break
            rejected, grow = rejected + 1, 1.0
            h *= max(0.2, 0.9 * error**-0.2)
        accepted += 1
        x, t, slope = fresh, target, slopes[-1]
        h *= min(grow, max(0.2, 0.9 * error**-0.2)) if error > 0 else grow
    return Integration(x, accepted, rejected)


def _first_step(denoiser: Denoiser, x: Any, slope: Any, start: float, end: float, rtol: float, atol: float) -> float:
    """The starting step of Hairer, Norsett and Wanner, Solving ODEs I, section II.4; one evaluation."""
    scale = atol + rtol * x.abs()
    size, speed = _rms(x / scale), _rms(slope / scale)
    h0 = min(1e-6 if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed, end - start)
    bend = _rms((denoiser.velocity(x + h0 * slope, start + h0) - slope) / scale) / h0
    steepest = max(speed, bend)
    h1 = max(1e-6, 1e-3 * h0) if steepest <= 1e-15 else (0.01 / steepest) ** 0.2
    return min(100 * h0, h1, end - start)


def _whole_interval(path: Path, t_start: float, grid: Grid, nfe: int) -> Schedule:
    return Schedule((t_start, path.t_data))


@register(
    "dopri5", title="Dormand-Prince 5(4)", paper="doi:10.1016/0771-050X(80)90013-3", coordinate="velocity", order=5,
    path="flow", singular_start=True, grids=("uniform",), scheduler=_whole_interval, adaptive=True,
    note="torchdiffeq's dopri5 shares the tableau but has another step control: about a tenth more evaluations.",
)  # fmt: skip
def dopri5(denoiser: Denoiser, x: Any, times: Sequence[float], *, rtol: float = 1e-5, atol: float = 1e-5) -> Any:
    """The fifth-order solution with error control by the embedded fourth-order one; see `integrate_adaptively`."""
    return integrate_adaptively(denoiser, x, times[0], times[-1], rtol, atol).x
