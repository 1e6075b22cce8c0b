"""Distillation: fit the numbers of a coefficient table to a model, by Gauss-Newton on the log error.

The loss is that of BNS (arXiv 2403.01329): the mean over pairs of log |x_n - y|^2, that is the mean PSNR, where y is
the exact solution from the noise x_T. A table has few numbers (fewer than 200 up to 16 evaluations) and its result has
many, so this is a small least-squares problem. It is solved as one: the sensitivity of the result to every number is
carried forward through the rows, with directional differences of the denoiser,

    dx_i = da_i x_T + sum_j (db_ij f_j + b_ij df_j),     df_i = f'(x_i, t_i)[dx_i] + df/dt dt_i,

and each step solves the damped normal equations (Levenberg-Marquardt), every pair weighted by 1 / |x_n - y|^2. The
logarithm is concave, so the weighted squares bound it from above. No gradient of the network is asked for: any network
that can be evaluated can be distilled, and memory is that of evaluating one batch.

A parameterisation (`solvers.learned.parameters`) says which tables are in reach and how many numbers are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.learned.pairs import PSNR, Loss, Pairs
from fastsample.solvers.learned.parameters import Parameters
from fastsample.solvers.table import Table

__all__ = ["Fit", "fit", "sensitivities"]

EVALUATIONS = 16384  # of the sensitivities of one step, where that is enough
PROBED = 128  # training pairs on which the damping of a step is chosen


@dataclass(frozen=True)
class Fit:
    """The state of a fit after a step; with it the fit goes on exactly.

    Attributes:
        iteration: steps taken.
        theta: the current numbers; damping: of the next step.
        best: the numbers with the highest validation PSNR so far; validation: that PSNR in dB (mean over pairs).
        history: (iteration, PSNR of the training pairs that chose the damping, validation PSNR) in dB.
        stalled: steps since the validation PSNR last rose by 0.05 dB.
    """

    iteration: int
    theta: np.ndarray
    damping: float
    best: np.ndarray
    validation: float
    history: tuple[tuple[int, float, float], ...] = ()
    stalled: int = 0


@torch.no_grad()
def fit(
    parameters: Parameters,
    train: Pairs,
    validation: Pairs,
    *,
    iterations: int = 24,
    batch: int = 256,
    patience: int = 4,
    seed: int = 0,
    loss: Loss = PSNR,
    soft: bool = False,
    state: Fit | None = None,
) -> Iterator[Fit]:
    """Fit, yielding the state after every step; the last one's `best` is the result.

    Args:
        parameters: the family of tables, with its starting point.
        iterations: steps at most; it ends earlier when `patience` steps brought less than 0.05 dB on validation.
        batch: points in one network call.
        seed: of the draws.
        loss: what is made small; scores are of it, in dB.
        soft: the student starts from a noise of less loss in a small ball around the teacher's, see `Loss.soften`;
            validation is at the noises themselves.
        state: where an interrupted fit stopped.

    Raises:
        FloatingPointError: if the starting point has no finite error.
    """
    if state is None:
        start = loss.score(parameters.table(parameters.start), validation, batch)
        if not np.isfinite(start):
            raise FloatingPointError("the initial solver's result is not finite; start from another one")
        state = Fit(0, parameters.start, 1e-3, parameters.start, start, ((0, np.nan, start),))
    count = _pairs_of_a_step(parameters, train)
    while state.iteration < iterations and state.stalled < patience:
        rng = np.random.default_rng([seed, state.iteration])
        order = rng.permutation(len(train.x))
        drawn = train.subset(np.sort(order[:count]))
        # Few pairs determine a step, but not how far to trust it: that is seen on others, where there are some.
        probe = train.subset(np.sort(order[-max(count, min(PROBED, len(order))) :]))
        if soft:
            drawn, probe = (loss.soften(parameters.table(state.theta), pairs, batch) for pairs in (drawn, probe))
        hessian, gradient = _normal_equations(parameters, state.theta, drawn, batch, loss)
        theta, damping, reached = state.theta, state.damping, loss.score(parameters.table(state.theta), probe, batch)
        for trial in (state.damping * 5**k for k in range(12)):
            scaled = hessian + trial * np.diag(np.diag(hessian) + 1e-12 * np.trace(hessian))
            try:
                moved = state.theta - np.linalg.solve(scaled, gradient)
                table = parameters.table(moved)
            except (np.linalg.LinAlgError, ArithmeticError):  # two numbers that do the same; a step of length 0
                continue
            finite = np.isfinite(table.b).all() and np.isfinite(table.a).all()
            value = loss.score(table, probe, batch) if finite else -np.inf
            if value > reached:
                theta, damping, reached = moved, trial, value
                break
        scored = loss.score(parameters.table(theta), validation, batch)
        better = scored > state.validation
        state = replace(
            state,
            iteration=state.iteration + 1,
            theta=theta,
            damping=min(max(damping * (5 if theta is state.theta else 0.2), 1e-9), 1.0),
            best=theta if better else state.best,
            validation=max(scored, state.validation),
            history=(*state.history, (state.iteration + 1, reached, scored)),
            stalled=0 if scored > state.validation + 0.05 else state.stalled + 1,
        )
        yield state


def _pairs_of_a_step(parameters: Parameters, train: Pairs) -> int:
    """Training pairs of a step: what `EVALUATIONS` pays for, at least 32 and 64 residuals a number; at most all."""
    n = parameters.table(parameters.start).nfe
    cost = 1 + sum(i * (i + 3) // 2 + 3 for i in range(1, n))
    return min(len(train.x), max(32, EVALUATIONS // cost, 64 * parameters.free // train.x[0].numel()))


def _normal_equations(
    parameters: Parameters, theta: np.ndarray, pairs: Pairs, batch: int, loss: Loss
) -> tuple[np.ndarray, np.ndarray]:
    """J^T J and J^T r of the weighted residuals, in theta."""
    table = parameters.table(theta)
    change = parameters.jacobian(theta)  # [entries, theta]
    hessian, gradient = np.zeros((len(change), len(change))), np.zeros(len(change))
    # The rows' sensitivities are about group * entries * n / 3 points: as many for every n.
    group = max(1, min(len(pairs.x), 32768 // (len(change) * table.nfe)))
    for low in range(0, len(pairs.x), group):
        index = range(low, min(low + group, len(pairs.x)))
        x, y = (part[index.start : index.stop] for part in (pairs.x, pairs.y))
        result, moves = sensitivities(table, pairs.make, index, x, batch, parameters.first)
        for error, moved in loss.residuals(result, moves, y):
            weight = loss.weights(error)
            scaled = (moved * weight.reshape(-1, *[1] * (error.ndim - 1))).flatten(1)
            target = (error * weight.reshape(-1, *[1] * (error.ndim - 1))).flatten()
            hessian += (scaled @ scaled.T).double().cpu().numpy()
            gradient += (scaled @ target).double().cpu().numpy()
    return change.T @ hessian @ change / len(pairs.x), change.T @ gradient / len(pairs.x)


def sensitivities(
    table: Table,
    make: Callable[[Sequence[int]], Denoiser],
    index: Sequence[int],
    x: torch.Tensor,
    batch: int = 256,
    first: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of a table and its derivatives by the table's entries.

    Args:
        table: of n evaluations, without noise.
        make, index: the denoiser of each point of x, as in `Pairs`.
        x: [m, ...] starting points.
        batch: points in one network call.
        first: whether the derivative by t_0 is the first of them; it takes n + 1 evaluations more.

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
        h = max(0.02 * min(gaps[max(i - 1, 0) : i + 1]), 1e-4 * abs(t))

        def slope(point: torch.Tensor = point, t: float = t, h: float = h) -> torch.Tensor:
            after, before = (_evaluate(table, make, index, point, t + d, batch) for d in (h, -h))
            return (after - before) / (2 * h)

        if i == 0:
            moves.append(slope()[None] if first else change)
            continue
        size = change.flatten(2).norm(dim=2).clamp(min=1e-30)
        step = torch.finfo(x.dtype).eps ** 0.5 * point.flatten(1).norm(dim=1) / size
        step = step.reshape(*step.shape, *[1] * (x.ndim - 1))
        near = (point + step * change).flatten(0, 1)
        moved = _evaluate(table, make, list(index) * len(change), near, t, batch).reshape(change.shape)
        moves.append(torch.cat([(moved - f[i]) / step, slope()[None]]))
    raise AssertionError("the last row returns")


def _evaluate(
    table: Table, make: Callable[[Sequence[int]], Denoiser], index: Sequence[int], x: torch.Tensor, t: float, batch: int
) -> torch.Tensor:
    parts = [
        make(index[low : low + batch]).predict(x[low : low + batch], t, table.coordinate)
        for low in range(0, len(x), batch)
    ]
    return torch.cat(parts)
