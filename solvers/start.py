"""Where a run begins that cannot begin at the noise itself.

Solvers in lambda, NSR or sigma cannot start on a path whose noise end has alpha = 0 (CondOT), and some grids begin
late on every path. The state at their first time s is one DDIM step from the noise x_T = alpha_T x0 + sigma_T eps,

    x_s = sigma_s / sigma_T x_T + (alpha_s - sigma_s alpha_T / sigma_T) D,        D = x0(x_T, T).

The solver's own first evaluation is at (x_s, s), and next to the noise the data prediction hardly depends on x. So D
is taken at x_s without its last term, x_s is completed with it, and D answers the solver's first question: the state
costs no evaluation. Both uses of D are off by O(alpha_s^2): on CondOT, with alpha_s = 0.001, by about 1e-6. Without
the last term the result would lack alpha_s times the mean of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastsample.models.denoiser import Denoiser, Point, Wrapped, data_prediction

__all__ = ["solve_from"]


class _Asked(Exception):  # noqa: N818
    """The first question of a solver, (x, t, p, r, rows): rows of `Denoiser.each`, or None where all have one time."""


class _Probe(Denoiser):
    """Raises the first question."""

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        raise _Asked(x, t, p, r, None)

    def _each(self, x: Any, points: Sequence[Point], rows: Sequence[int]) -> Any:
        raise _Asked(x, *points[0], rows)  # all begin at one time


class _Answered(Wrapped):
    """Answers the first question with an answer that was made at another x; the others as the base does."""

    def __init__(self, base: Denoiser, point: Any, answer: Any) -> None:
        super().__init__(base)
        self._first: tuple[Any, Any] | None = point, answer

    def combine(self, x: Any, t: float, p: float, r: float) -> Any:
        if self._first is None:
            return super().combine(x, t, p, r)
        self.nfe += 1
        return self._again(self._first, x, t, r)

    def each(self, x: Any, points: Sequence[Point], rows: Sequence[int]) -> Any:
        if self._first is None:
            return super().each(x, points, rows)
        self.own.update(rows)
        t, _, r = points[0]
        return self._again(self._first, x, t, r)

    def _again(self, first: tuple[Any, Any], x: Any, t: float, r: float) -> Any:
        (point, answer), self._first = first, None
        return answer if r == 0 else answer + (r / self.path.sigma(t)) * (x - point)  # the same x0, and its eps at x


def solve_from(model: Denoiser, x: Any, shift: float, s: float, solve: Callable[[Denoiser, Any], Any]) -> Any:
    """solve(model, x + shift D), with D the data prediction of its first evaluation.

    Where that evaluation is nearer to the data than s it says too little about D, and the run starts from x.

    Args:
        x: the noise part of the state at s; shift: the coefficient of D in it.
        solve: of (model, state at s); it is run up to its first question twice.
    """
    path = model.path
    try:
        solve(_Probe(path), x)
    except _Asked as question:
        point, t, p, r, rows = question.args
        if path.lam(t) <= path.lam(s) + 1e-9:
            each = [(t, p, r)] * len(rows or ())
            answer = model.combine(point, t, p, r) if rows is None else model.each(point, each, rows)
            d = data_prediction(path, t, point, answer, p, r)
            return solve(_Answered(model, point, answer), x + shift * d)
    return solve(model, x)
