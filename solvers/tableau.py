"""Runge-Kutta tableaus."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tableau"]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method.

    Stage i is k_i = u at t + nodes[i] h and x + h sum_j rows[i][j] k_j; the result is x + h sum_j weights[j] k_j.
    """

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
