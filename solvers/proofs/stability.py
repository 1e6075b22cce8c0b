"""What a coefficient table does to errors, and how stiff a problem it bears.

A table is x_i = a_i x_T + sum_{j<i} b_ij f_j + noise, i = 0..n, and x_n the result. With the predictions held, an error
e in x_T moves the point x_i by a_i e, and errors e_j in the predictions, |e_j| <= e, by at most e sum_j |b_ij|. What
the points' own errors do to the predictions there is the model's part, and is seen on a linear model: on the linear
path (CondOT: time r = alpha / (alpha + sigma), state y = x / (alpha + sigma)), to which each path is carried,

    dy/dr = z y,    so that the velocity there is z y, the data prediction y (1 + (1 - r) z), the noise y (1 - r z),

a table answers y_n = R(z) y_T with the polynomial R that its rows make of it, where the solution is
exp(z (r_n - r_T)) y_T. A real z < 0 is a model that leads back to a point, as near the data of a small set: the more
so, the smaller z. What a table bears is the interval of z below 0 on which |R(z)| <= |R(0)|; for steps h of Euler's
method it ends at z h = -2. Noise of a stochastic table is kept apart: it is no error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastsample.models.denoiser import weights
from fastsample.models.path import Path
from fastsample.solvers.table import Table

__all__ = ["FACTORS", "Stability", "growth", "stability"]

FACTORS = (-20.0, -10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0)  # z of which R(z) is told
_LINE = -np.linspace(0, 100, 20_001)  # z on which the bound is looked for
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Stability:
    """What a table does to errors; see the module.

    Attributes:
        start, start_inside: |a_n|, and the largest |a_i| of the points of evaluation.
        evaluations, evaluations_inside: sum_j |b_nj|, and the largest sum_j |b_ij| of those points.
        cancellation: sum_j |b_nj| over |sum_j b_nj|: 1 where no two predictions are subtracted from one another.
        largest: the largest |b_ij|.
        noise: root of the sum of w_nk^2: standard deviation of the noise in the result, with the predictions held.
        factors: (z, R(z), the exact factor) for z of `FACTORS`.
        bears: the least z with |R| <= |R(0)| from there to 0; None where that holds down to -100.
        step: (r_n - r_T) / n, the mean step, with which `bears` compares between budgets.
    """

    start: float
    start_inside: float
    evaluations: float
    evaluations_inside: float
    cancellation: float
    largest: float
    noise: float
    factors: tuple[tuple[float, float, float], ...]
    bears: float | None
    step: float

    def __str__(self) -> str:
        """What errors in the evaluations do, in one sentence."""
        amplified = f", {self.cancellation:.2g} times what it would if none were subtracted from another"
        return (
            f"an error of 1e-3 in each evaluation changes the result by at most {1e-3 * self.evaluations:.2g}"
            f"{amplified if self.cancellation > 1.05 else ''}, and a point on the way by at most "
            f"{1e-3 * self.evaluations_inside:.2g}; the largest coefficient is {self.largest:.3g}"
        )

    @property
    def stiffness(self) -> str:
        """How stiff a linear model may be, and the factors, in one sentence."""
        down = "to -100 and below" if self.bears is None else f"to {self.bears:.1f}, z h = {self.bears * self.step:.2f}"
        told = ", ".join(f"{z:g}: {found:.3g} ({exact:.3g})" for z, found, exact in self.factors)
        return f"does not grow for z from 0 {down}; factor at z, in brackets the solution's: {told}"


def stability(table: Table, path: Path) -> Stability:
    """What a table on a path does to errors.

    Args:
        table: in any prediction.
        path: of its times.
    """
    sizes, first = np.abs(table.b).sum(1), _linear(path, path.t_noise)
    last = _linear(path, table.end)
    told = np.array(FACTORS)
    found, exact = growth(table, path, told), np.exp(told * (last - first))
    line = np.abs(growth(table, path, _LINE))
    over = np.flatnonzero(line > line[0] + _ROUNDING * max(1.0, line[0]))
    return Stability(
        start=float(abs(table.a[-1])),
        start_inside=float(np.abs(table.a[:-1]).max()),
        evaluations=float(sizes[-1]),
        evaluations_inside=float(sizes[:-1].max()),
        cancellation=float(sizes[-1] / total) if (total := abs(table.b[-1].sum())) else 1.0,
        largest=float(np.abs(table.b).max()),
        noise=float(np.sqrt(np.square(table.w[-1]).sum())),
        factors=tuple((float(z), float(r), float(e)) for z, r, e in zip(told, found, exact, strict=True)),
        bears=float(_LINE[over[0] - 1]) if len(over) else None,
        step=float((last - first) / table.nfe),
    )


def growth(table: Table, path: Path, z: np.ndarray) -> np.ndarray:
    """R(z) [m] of a table on the linear problem, without noise; z [m], real or complex."""
    times = [*map(float, table.times), table.end]
    f, begin = np.zeros((table.nfe, len(z)), z.dtype), _size(path, path.t_noise)
    for i, t in enumerate(times):
        x = table.a[i] * begin + table.b[i, :i] @ f[:i]
        if i < table.nfe:
            r, (p, q) = _linear(path, t), weights(path, t, table.coordinate)
            f[i] = (p * (1 + (1 - r) * z) + q * (1 - r * z)) * x / _size(path, t)
    return np.asarray(x / _size(path, times[-1]))


def _size(path: Path, t: float) -> float:
    return path.alpha(t) + path.sigma(t)


def _linear(path: Path, t: float) -> float:
    return path.alpha(t) / _size(path, t)
