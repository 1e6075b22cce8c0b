"""Denoisers that answer otherwise than their model: thresholded data, an analytic first answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastsample.models.denoiser import Denoiser, Point, Wrapped

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`

__all__ = ["AnalyticFirstStep", "Thresholded"]


class Thresholded(Wrapped):
    """Dynamic thresholding of the data prediction (arXiv 2205.11487, section 2.3).

    s = max(quantile(|x0|, 0.995), 1) per sample; x0 is clipped to [-s, s] and divided by s. It is
    not linear in x: a solver's coefficient table tells what it does with the answers, not with the model's.

    Args:
        most: the largest s, such as diffusers' `sample_max_value`; None for no limit.
    """

    def __init__(self, base: Denoiser, quantile: float = 0.995, most: float | None = None) -> None:
        super().__init__(base)
        self.quantile, self.most = quantile, most

    def _combine(self, x: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        return self._answer(x, self.base.x0(x, t), t, p, r)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        import torch

        x0 = self.base.each(x, [(t, 1.0, 0.0) for t, _, _ in points], rows)
        return torch.cat([self._answer(x[i : i + 1], x0[i : i + 1], *point) for i, point in enumerate(points)])

    def _answer(self, x: torch.Tensor, x0: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        size = _quantile(x0.abs().flatten(1), self.quantile).clamp(min=1.0, max=self.most)
        size = size.reshape(-1, *[1] * (x0.ndim - 1))
        x0 = x0.maximum(-size).minimum(size) / size
        return p * x0 if r == 0 else p * x0 + (r / self.path.sigma(t)) * (x - self.path.alpha(t) * x0)


def _quantile(x: torch.Tensor, q: float) -> torch.Tensor:
    """The quantile of each row of x [n, d], linear between order statistics; torch.quantile's, but for any number."""
    place = q * (x.shape[1] - 1)
    below = int(place)
    low = x.kthvalue(below + 1, dim=1).values
    high = x.kthvalue(min(below + 2, x.shape[1]), dim=1).values
    return low.lerp(high, place - below)


class AnalyticFirstStep(Wrapped):
    """Replaces the first evaluation by eps = x / sqrt(alpha^2 + sigma^2) and does not count it.

    At the noise end x is nearly all noise, so this "analytic first step" (AFS, arXiv 2210.05475)
    saves one evaluation; it is the exact denoiser of standard-normal data.
    """

    def __init__(self, base: Denoiser) -> None:
        super().__init__(base)
        self._first = True

    def combine(self, x: Any, t: float, p: float, r: float) -> Any:
        if not self._first:
            return super().combine(x, t, p, r)
        self._first = False
        return self._analytic(x, t, p, r)

    def _analytic(self, x: Any, t: float, p: float, r: float) -> Any:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        size = math.hypot(alpha, sigma)
        x0 = alpha / (size * (size + sigma))  # (1 - sigma / size) / alpha, finite at alpha = 0
        return (p * x0 + r / size) * x

    def each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        import torch

        if not self._first:
            return super().each(x, points, rows)
        self._first = False
        return torch.cat([self._analytic(x[i : i + 1], *point) for i, point in enumerate(points)])
