"""RX-DPM (arXiv 2504.01855): Richardson extrapolation of Euler steps in NSR, RX-Euler.

In blocks of k intervals of the grid, from b on, with the first slope of a block used twice:

    fine      k Euler steps from x_b
    coarse    one Euler step over the block
    S         sum over the block of ((n_j - n_{j+1}) / (n_b - n_{b+k}))^2
    x         (fine - S coarse) / (1 - S)

An Euler step errs by the square of its length, so that S is the ratio of both errors. Where the steps of a block differ
much S is near 1, and 1 / (1 - S) amplifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import Facts, Schedule, register


def _blocks(times: Sequence[float], k: int, skip_last: bool) -> Iterator[Sequence[float]]:
    """The times of each block, ends included; a rest of n mod k intervals is one without or joins the last."""
    n = len(times) - 1
    whole = n // k
    for j in range(whole):
        end = n if j == whole - 1 and not skip_last else (j + 1) * k
        yield times[j * k : end + 1]
    if n % k and (skip_last or not whole):
        yield times[whole * k :]


def _share(block: Sequence[float], counted: int) -> float:
    """S, of the first `counted` intervals."""
    widths = [s - t for s, t in pairwise(block)]
    return sum((width / (block[0] - block[-1])) ** 2 for width in widths[:counted])


def _schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, k: int = 2, skip_last: bool = True) -> Schedule:
    """A step an evaluation; it tells of blocks that amplify more than five times."""
    times = grid(path, nfe, t_start, path.t_data)
    worst = max((_share(block, k) for block in _blocks(times, k, skip_last) if len(block) > k), default=0.0)
    remark = (
        f"rx-euler: two of the {nfe} steps on grid {grid} differ so much that extrapolation amplifies "
        f"{1 / (1 - worst):.3g} times; take more steps or a grid of more equal ones"
    )
    return Schedule(times, remark=remark if worst > 0.8 else "")


@register(
    "rx-euler",
    Facts(
        title="RX-Euler",
        paper="2504.01855",
        coordinate="eps",
        order=2,
        path="edm",
        grids=("karras", "logsnr"),
        flow_grid="sigmoid",
        scheduler=_schedule,
        ranges={"k": (2, 10)},
        variants=({}, {"k": 3}, {"skip_last": False}),
        note="With skip_last=false the official S leaves the added steps of the last block out (official=true).",
    ),
)
def rx_euler(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, k: int = 2, skip_last: bool = True, official: bool = False
) -> Any:
    """RX-Euler in blocks of k; second order, one evaluation a step.

    skip_last: steps that are left after the last whole block are Euler steps; otherwise that block has them too.
    """
    for block in _blocks(times, k, skip_last):
        coarse = fine = x
        for i, (s, t) in enumerate(pairwise(block)):
            slope = denoiser.eps(fine, s)
            fine = fine + (t - s) * slope
            if i == 0:
                coarse = x + (block[-1] - s) * slope
        share = _share(block, k if official else len(block))
        x = fine if len(block) <= k else (1 / (1 - share)) * fine - (share / (1 - share)) * coarse
    return x
