"""Empirical model statistics l, s and b (arXiv 2310.13268), and the integrals that DPM-Solver-v3 takes of them.

All are functions of lambda with a number for each coordinate of a sample, or one for all. With

    L = int l,   S = int s,   B = int e^-S b,   E_k = int e^(L+S) (lambda - lambda_s)^k / k!,   C = int e^(L+S) B

taken from lambda_s, which is all that a step from s needs. Between the points of its grid a statistic is linear; the
integrals are Gauss-Legendre sums on pieces between these points, exact to rounding where l and s are constant. The
official code has the trapezoidal rule on the points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

__all__ = ["GAUSS", "TRAPEZOID", "Rule", "Span", "Statistics", "constant", "gauss"]

Array = np.ndarray
_NAMES: tuple[Literal["l", "s", "b"], ...] = ("l", "s", "b")
_WIDEST = 1.0  # of a piece, in lambda


@dataclass(frozen=True, eq=False)
class Rule:
    """A quadrature on [0, 1]: nodes, weights, and `inner[i]`, the weights of the integral from 0 to node i."""

    nodes: Array
    weights: Array
    inner: Array


def gauss(points: int) -> Rule:
    """The Gauss-Legendre rule of so many points."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    nodes = (nodes + 1) / 2
    powers = np.arange(points)
    inner = (nodes[:, None] ** (powers + 1) / (powers + 1)) @ np.linalg.inv(nodes[:, None] ** powers)
    return Rule(nodes, weights / 2, inner)


GAUSS = gauss(7)
TRAPEZOID = Rule(np.array([0.0, 1.0]), np.array([0.5, 0.5]), np.array([[0.0, 0.0], [0.5, 0.5]]))


@dataclass(frozen=True, eq=False)
class Span:
    """The integrals over one stretch of lambda: L, S, B, C and E_0, E_1, ...; arrays [*shape], or of one number."""

    l: Array  # noqa: E741 - the paper's letters
    s: Array
    b: Array
    c: Array
    e: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Statistics:
    """l, s and b on a uniform grid of lambda.

    Attributes:
        lam: [N + 1] float64, rising from the noise end.
        l, s, b: [N + 1, *shape] float64, or [N + 1] where one number stands for every coordinate.
        facts: what they were found with, in words; "sha256" is the hash of their file.
    """

    lam: Array
    l: Array  # noqa: E741
    s: Array
    b: Array
    facts: Mapping[str, str] | None = None

    @property
    def linear(self) -> bool:
        """Whether a step is linear with one number for all coordinates, so that there is a coefficient table."""
        return self.l.ndim == 1 and self.s.ndim == 1 and not self.b.any()

    def averaged(self, over: str) -> Statistics:
        """With one number for each `channel`, or `scalar` for all coordinates; b, a constant image, is left out."""
        if over == "coordinate" or self.l.ndim == 1:
            return self
        axes = tuple(range(2 if over == "channel" else 1, self.l.ndim))
        mean = [value.mean(axes, keepdims=over == "channel") for value in (self.l, self.s)]
        return replace(self, l=mean[0], s=mean[1], b=np.zeros_like(self.lam))

    def index(self, lam: float) -> int:
        """The point of the grid next to lambda; of two equally near the even one, as in the official code."""
        return int(np.clip(np.rint((lam - self.lam[0]) / self._step), 0, len(self.lam) - 1))

    def covers(self, first: float, last: float) -> bool:
        """Whether the grid reaches from one lambda to the other, a thousandth of its length aside."""
        slack = 1e-3 * (self.lam[-1] - self.lam[0])
        return len(self.lam) == 1 or bool(self.lam[0] - slack <= first and last <= self.lam[-1] + slack)

    def at(self, name: Literal["l", "s", "b"], lam: Array) -> Array:
        """A statistic at points lam of any shape: [*lam.shape, *shape]; beyond its grid as at the end of it."""
        values = getattr(self, name)
        if len(self.lam) == 1:
            return np.broadcast_to(values[0], lam.shape + values.shape[1:])
        place = np.clip((lam - self.lam[0]) / self._step, 0, len(self.lam) - 1)
        low = np.minimum(place.astype(int), len(self.lam) - 2)
        share = (place - low).reshape(place.shape + (1,) * (values.ndim - 1))
        return np.asarray((1 - share) * values[low] + share * values[low + 1])

    def span(self, start: float, end: float, derivatives: int = 0, rule: Rule = GAUSS) -> Span:
        """The integrals from lambda `start` up to `end`, E_0 to E_derivatives among them.

        They are kept, since every batch of a run asks for the same.
        """
        key = start, end, derivatives, id(rule)
        if key not in self._spans:
            self._spans[key] = self._integrals(start, end, derivatives, rule)
        return self._spans[key]

    def _integrals(self, start: float, end: float, derivatives: int, rule: Rule) -> Span:
        near = 1e-7 * (end - start)
        low, high = np.searchsorted(self.lam, (start + near, end - near))
        edges = np.concatenate([[start], self.lam[low:high], [end]])
        if rule is not TRAPEZOID and end - start > _WIDEST:
            edges = np.union1d(edges, np.linspace(start, end, math.ceil((end - start) / _WIDEST) + 1))
        width = np.diff(edges)
        points = edges[:-1, None] + width[:, None] * rule.nodes

        def whole(values: Array) -> Array:
            return np.tensordot(width[:, None] * rule.weights, values, 2)

        def upto(values: Array) -> Array:
            """The integral to each of the points."""
            h = width.reshape(-1, *[1] * (values.ndim - 2))
            pieces = h * np.tensordot(values, rule.weights, ([1], [0]))
            inner = np.moveaxis(np.tensordot(values, rule.inner, ([1], [1])), -1, 1)
            return np.asarray((np.cumsum(pieces, 0) - pieces)[:, None] + h[:, None] * inner)

        l, s, b = (self.at(name, points) for name in _NAMES)  # noqa: E741
        s_at, some = upto(s), self.b.any()
        b_weight = np.exp(-s_at) * b if some else np.zeros((len(width), len(rule.nodes)))
        weight = np.exp(upto(l) + s_at)
        away = (points - start).reshape(points.shape + (1,) * (weight.ndim - 2))
        e = tuple(whole(weight * away**k / math.factorial(k)) for k in range(derivatives + 1))
        c = whole(weight * upto(b_weight)) if some else np.zeros(())
        return Span(whole(l), whole(s), whole(b_weight), c, e)

    @property
    def _step(self) -> float:
        return float(self.lam[-1] - self.lam[0]) / (len(self.lam) - 1)

    @cached_property
    def _spans(self) -> dict[tuple[float, float, int, int], Span]:
        return {}


def constant(prediction: Literal["data", "noise"], lam: Any = (0.0,)) -> Statistics:
    """The statistics with which DPM-Solver-v3 is DPM-Solver++ (data) or DPM-Solver (noise), on the points given."""
    lam = np.asarray(lam, float)
    l, s = (1.0, 0.0) if prediction == "data" else (0.0, -1.0)  # noqa: E741
    return Statistics(lam, np.full(len(lam), l), np.full(len(lam), s), np.zeros(len(lam)))
