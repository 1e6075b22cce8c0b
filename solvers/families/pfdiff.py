"""PFDiff (arXiv 2408.08822): first-order steps with the noise of the past and of the future.

With the DDIM transfer F(x, e; s -> t) = alpha_t / alpha_s (x - sigma_s e) + sigma_t e and e the newest noise
prediction, a round from node i over k + 1 intervals of the grid asks the model once, at a springboard h nodes ahead:

    u = F(x, e; i -> i + h),    e = eps(u, t_{i+h}),    x = F(x, e; i -> i + k + 1).

The first step is DDIM's. n evaluations make 1 + (n - 1) (k + 1) intervals. Where fewer intervals are left than a round
has, it ends at the last node with h = 1, or with a DDIM step over a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Schedule, register

_Variant = Literal["1_1", "2_1", "2_2", "3_1", "3_2", "3_3"]


def _schedule(
    path: Path, t_start: float, grid: Grid, nfe: int, *, variant: _Variant = "2_1", intervals: int = 0
) -> Schedule:
    """intervals: those of the grid; 0 for as many as the budget spends exactly."""
    span = int(variant[0]) + 1
    made = 1 + -(-(intervals - 1) // span)
    if made > nfe:
        raise BudgetError(f"{intervals} intervals need {made} evaluations")
    return Schedule(grid(path, intervals or 1 + (nfe - 1) * span, t_start, path.t_data))


def _order(*, variant: str, **_: Any) -> int:
    return 2 if variant in ("1_1", "3_2") else 1


@register(
    "pfdiff",
    Facts(
        title="PFDiff",
        paper="2408.08822",
        coordinate="eps",
        order=_order,
        grids=("logsnr", "uniform", "integer-uniform"),
        flow_grid="sigmoid",
        scheduler=_schedule,
        ranges={"intervals": (0, 10_000)},
        variants=({}, *({"variant": name} for name in ("1_1", "2_2", "3_1", "3_2", "3_3"))),
    ),
)
def pfdiff(denoiser: Denoiser, x: Any, times: Sequence[float], *, variant: _Variant = "2_1") -> Any:
    """PFDiff-k_h, `variant` k_h; one evaluation a round of k + 1 intervals.

    First order, and second where the springboard is the middle of the round (1_1 and 3_2).
    """
    path, (k, ahead), last = denoiser.path, map(int, variant.split("_")), len(times) - 1

    def transfer(x: Any, e: Any, i: int, j: int) -> Any:
        ratio = path.alpha(times[j]) / path.alpha(times[i])
        return ratio * x + (path.sigma(times[j]) - ratio * path.sigma(times[i])) * e

    e = denoiser.eps(x, times[0])
    x, i = transfer(x, e, 0, 1), 1
    while i < last:
        target = min(i + k + 1, last)
        board = i + (ahead if target - i == k + 1 else target - i > 1)
        e = denoiser.eps(x if board == i else transfer(x, e, i, board), times[board])
        x, i = transfer(x, e, i, target), target
    return x
