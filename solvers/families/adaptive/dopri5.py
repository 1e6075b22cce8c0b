"""Adaptive integration: Dormand-Prince 5(4) on the velocity of the linear path.

Every sample has its own steps, which follow its own error alone: neither they nor its result depend on what
else is in the batch. The network is called for all samples that are still on their way, each at its own time. Step
control is that of scipy's RK45, which published rectified-flow results were made with (arXiv 2209.03003), over
one sample where those took the whole batch; so each makes the evaluations that scipy makes for it alone.
A budget has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsample.models.denoiser import Denoiser, column, weights
from fastsample.solvers.adams import combine
from fastsample.solvers.solver import Facts, register, whole_interval
from fastsample.solvers.tableau import Tableau

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`

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
    """An adaptive run: its results, and the accepted and rejected steps [batch] of each sample.

    A sample takes 2 + 6 (accepted + rejected) evaluations.
    """

    x: torch.Tensor
    accepted: np.ndarray
    rejected: np.ndarray


def integrate_adaptively(
    denoiser: Denoiser, x: torch.Tensor, start: float, end: float, rtol: float, atol: float, max_nfe: int = 10_000
) -> Integration:
    """Integrate dx/dt = u(x, t) from start to end > start; local error RMS(e / (atol + rtol max|x|)) <= 1.

    Args:
        x: [batch, ...]; the norm runs over one sample.
        max_nfe: evaluations that a sample may take.

    Raises:
        ArithmeticError: where the step of a sample falls below 1e-10 (no finite solution to the tolerance), or
            its evaluations exceed `max_nfe`.
    """

    import torch

    def velocity(x: torch.Tensor, times: np.ndarray) -> torch.Tensor:
        points = [(t, *weights(denoiser.path, t, "velocity")) for t in times.tolist()]
        return denoiser.each(x, points, rows.tolist())

    def norm(x: torch.Tensor) -> np.ndarray:
        # One by one: a sum over the rows of a batch may be rounded otherwise than over one row.
        return torch.stack([row.square().mean().sqrt() for row in x]).double().cpu().numpy()

    result, rows = x.clone(), np.arange(len(x))  # rows: the samples that are still on their way
    accepted, rejected = np.zeros(len(x), int), np.zeros(len(x), int)
    t = np.full(len(x), start)
    slope = velocity(x, t)
    h = _first_step(velocity, norm, x, slope, t, end, rtol, atol)
    grow = np.full(len(x), 10.0)
    while len(rows):
        if not (h >= _SMALLEST).all():
            least = h.argmin()
            raise ArithmeticError(
                f"dopri5: a step fell to {h[least]:g} at t = {t[least]:g}; loosen {rtol=:g}, {atol=:g}"
            )
        if 2 + 6 * (accepted + rejected)[rows].max() + 6 > max_nfe:
            raise ArithmeticError(
                f"dopri5: a sample needs more than {max_nfe} evaluations; loosen {rtol=:g}, {atol=:g} or raise max_nfe"
            )
        target = np.minimum(t + h, end)
        h = target - t
        length, slopes, fresh = column(h, x), [slope], x
        for node, row in zip(_DOPRI5.nodes[1:], _DOPRI5.rows[1:], strict=True):
            fresh = x + length * combine(row, slopes)
            slopes.append(velocity(fresh, t + node * h))
        scale = atol + rtol * x.abs().maximum(fresh.abs())
        error = norm(length * combine(_ERROR, slopes) / scale)
        good = error < 1
        accepted[rows], rejected[rows] = accepted[rows] + good, rejected[rows] + ~good
        with np.errstate(divide="ignore"):
            h = h * np.minimum(np.where(good, grow, 1.0), np.fmax(0.2, 0.9 * error**-0.2))
        grow, t = np.where(good, 10.0, 1.0), np.where(good, target, t)
        moved = column(good, x) > 0
        x, slope = torch.where(moved, fresh, x), torch.where(moved, slopes[-1], slope)
        if (t >= end).any():
            there, left = np.flatnonzero(t >= end), np.flatnonzero(t < end)
            result[rows[there]], rows = x[there], rows[left]
            x, slope, t, h, grow = x[left], slope[left], t[left], h[left], grow[left]
    return Integration(result, accepted, rejected)


def _first_step(
    velocity: Callable[[torch.Tensor, np.ndarray], torch.Tensor], norm: Callable[[torch.Tensor], np.ndarray],
    x: torch.Tensor, slope: torch.Tensor, t: np.ndarray, end: float, rtol: float, atol: float,
) -> np.ndarray:  # fmt: skip
    """The starting steps [batch] of Hairer, Norsett and Wanner, Solving ODEs I, section II.4; one evaluation."""
    scale = atol + rtol * x.abs()
    size, speed = norm(x / scale), norm(slope / scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        h0 = np.minimum(np.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed), end - t)
        bend = norm((velocity(x + column(h0, x) * slope, t + h0) - slope) / scale) / h0
        steepest = np.maximum(speed, bend)
        h1 = np.where(steepest <= 1e-15, np.maximum(1e-6, 1e-3 * h0), (0.01 / steepest) ** 0.2)
    return np.minimum(np.minimum(100 * h0, h1), end - t)


@register(
    "dopri5",
    Facts(
        title="Dormand-Prince 5(4)",
        paper="doi:10.1016/0771-050X(80)90013-3",
        coordinate="velocity",
        order=5,
        path="flow",
        singular_start=True,
        grids=("uniform",),
        scheduler=whole_interval,
        adaptive=True,
        ranges={"rtol": (1e-13, 1), "atol": (1e-15, 1), "max_nfe": (8, 1_000_000)},
        note="torchdiffeq's dopri5 shares the tableau but has another step control: about a tenth more evaluations.",
    ),
)
def dopri5(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 10_000
) -> Any:
    """The fifth-order solution with error control by the embedded fourth-order one; see `integrate_adaptively`."""
    return integrate_adaptively(denoiser, x, times[0], times[-1], rtol, atol, max_nfe).x
