"""How the result of a coefficient table depends on each of its numbers, by evaluations of the denoiser alone.

The sensitivities are carried forward through the rows, with directional differences of the denoiser,

    dx_i = da_i x_T + sum_j (db_ij f_j + b_ij df_j),     df_i = f'(x_i, t_i)[dx_i] + df/dt dt_i.

No gradient of the network is asked for: any network that can be evaluated can be distilled, and memory is that of
evaluating one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.table import Table

__all__ = ["sensitivities"]


def sensitivities(
    table: Table,
    make: Callable[[Sequence[int]], Denoiser],
    index: Sequence[int],
    x: torch.Tensor,
    batch: int = 256,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of a table and its derivatives by the table's entries.

    Args:
        table: of n evaluations, without noise.
        make, index: the denoiser of each point of x, as in `Pairs`.
        x: [m, ...] starting points.
        batch: points in one network call.

    Returns:
        result [m, ...] and derivatives [entries, m, ...], in the order of `Table.entries`: for row i = 1..n
        a_i, b_i0 .. b_i(i-1) and, but for the last row, t_i. (n^3 + 6 n^2 + 5 n - 6) / 6 evaluations for each point.
    """
    n = table.nfe
    gaps = np.abs(np.diff(table.times, append=table.end))
    f = x.new_zeros((n, *x.shape))
    moves: list[torch.Tensor] = []
    for i in range(n + 1):
        b = torch.from_numpy(table.b[i, :i]).to(x)
        point = float(table.a[i]) * x + torch.tensordot(b, f[:i], dims=1)
        known = moves[-1].shape[0] if moves else 0
        change = x.new_zeros((known + (i + 1 if i else 0), *x.shape))
        for j, move in enumerate(moves):
            change[: len(move)] += b[j] * move
        if i:
            change[known] = x
            change[known + 1 :] = f[:i]
        if i == n:
            return point, change
        t = float(table.times[i])
        f[i] = _evaluate(table, make, index, point, t, batch)
        if i == 0:
            moves.append(change)
            continue
        size = change.flatten(2).norm(dim=2).clamp(min=1e-30)
        step = torch.finfo(x.dtype).eps ** 0.5 * point.flatten(1).norm(dim=1) / size
        step = step.reshape(*step.shape, *[1] * (x.ndim - 1))
        near = (point + step * change).flatten(0, 1)
        moved = _evaluate(table, make, list(index) * len(change), near, t, batch).reshape(change.shape)
        h = max(0.02 * min(gaps[i - 1 : i + 1]), 1e-4 * abs(t))
        slope = (
            _evaluate(table, make, index, point, t + h, batch) - _evaluate(table, make, index, point, t - h, batch)
        ) / (2 * h)
        moves.append(torch.cat([(moved - f[i]) / step, slope[None]]))
    raise AssertionError("the last row returns")


def _evaluate(
    table: Table, make: Callable[[Sequence[int]], Denoiser], index: Sequence[int], x: torch.Tensor, t: float, batch: int
) -> torch.Tensor:
    parts = [
        make(index[low : low + batch]).predict(x[low : low + batch], t, table.coordinate)
        for low in range(0, len(x), batch)
    ]
    return torch.cat(parts)
