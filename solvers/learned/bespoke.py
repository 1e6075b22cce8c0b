"""Scale-time Bespoke steps (arXiv 2310.19075): Runge-Kutta on s_r x(t_r) with given parameters.

r runs over n equal steps h = 1/n. Times t, scales s and their derivatives t', s' are independent
numbers at the nodes of the base method, so t' and s' need not belong to any curve. t = r, t' = 1,
s = 1, s' = 0 gives plain Euler and midpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastsample.models.denoiser import Denoiser

__all__ = ["ScaleTime", "rk1_bespoke", "rk2_bespoke"]


@dataclass(frozen=True)
class ScaleTime:
    """Parameters at the nodes: t, s of length k n + 1; t', s' of at least k n (the last is never used); s[0] = 1.

    k = 1 for `rk1_bespoke`, 2 (half steps) for `rk2_bespoke`.
    """

    t: Sequence[float]
    s: Sequence[float]
    d_t: Sequence[float]
    d_s: Sequence[float]


def rk1_bespoke(denoiser: Denoiser, x: Any, nodes: ScaleTime) -> Any:
    """Euler: x_{i+1} = ((s_i + h s'_i) x_i + h t'_i s_i u(x_i, t_i)) / s_{i+1}; n evaluations, n = len(t) - 1."""
    t, s, d_t, d_s = nodes.t, nodes.s, nodes.d_t, nodes.d_s
    n = len(t) - 1
    for i in range(n):
        u = denoiser.velocity(x, t[i])
        x = ((s[i] + d_s[i] / n) / s[i + 1]) * x + (d_t[i] * s[i] / (n * s[i + 1])) * u
    return x


def rk2_bespoke(denoiser: Denoiser, x: Any, nodes: ScaleTime) -> Any:
    """Midpoint on n = (len(t) - 1) / 2 steps, nodes at half steps; 2 n evaluations.

    z = (s_i + h/2 s'_i) x_i + h/2 s_i t'_i u(x_i, t_i)
    x_{i+1} = (s_i x_i + h [ s'_m / s_m z + t'_m s_m u(z / s_m, t_m) ]) / s_{i+1},   m = i + 1/2
    """
    t, s, d_t, d_s = nodes.t, nodes.s, nodes.d_t, nodes.d_s
    h = 2 / (len(t) - 1)
    for i in range(0, len(t) - 1, 2):
        m = i + 1
        z = (s[i] + h / 2 * d_s[i]) * x + (h / 2 * s[i] * d_t[i]) * denoiser.velocity(x, t[i])
        u = denoiser.velocity((1 / s[m]) * z, t[m])
        x = (s[i] / s[i + 2]) * x + (h / s[i + 2]) * ((d_s[m] / s[m]) * z + (d_t[m] * s[m]) * u)
    return x
