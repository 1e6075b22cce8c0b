"""Exact denoisers of Gaussian mixtures: models without weights, whose truth is known.

For data x_0 ~ sum_k w_k N(m_k, v_k) (v_k a scalar or a diagonal) and x_t = alpha x_0 + sigma eps,
with c_k = alpha^2 v_k + sigma^2 and responsibilities g_k = softmax_k(log w_k + log N(x; alpha m_k, c_k)):

    x0  = sum_k g_k ( m_k + alpha v_k / c_k (x - alpha m_k) )
    eps = sum_k g_k sigma / c_k (x - alpha m_k)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fastsample.models.denoiser import Denoiser, Point
from fastsample.models.path import Path

__all__ = ["GaussianMixture", "image_mixture", "ring_mixture"]


class GaussianMixture(Denoiser):
    """The exact denoiser of a mixture of Gaussians with diagonal covariance.

    Args:
        path: any path.
        means: [components, *shape] float64.
        variances: [components, *shape], or [components] for isotropic components; float64.
        weights: [components], summing to 1; equal where None.

    The arithmetic runs in the dtype of x.
    """

    def __init__(
        self, path: Path, means: torch.Tensor, variances: torch.Tensor, weights: torch.Tensor | None = None
    ) -> None:
        super().__init__(path)
        count = len(means)
        self.shape = tuple(means.shape[1:])
        self.means = means.reshape(count, -1)
        spread = variances.reshape(count, -1) if variances.ndim > 1 else variances.reshape(count, 1)
        self.variances = spread.expand_as(self.means).contiguous()
        self.log_weights = torch.full((count,), -math.log(count)) if weights is None else weights.log()

    def _combine(self, x: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        return self._mixed(x, self.path.alpha(t), self.path.sigma(t), p, r)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        facts = [(self.path.alpha(t), self.path.sigma(t), p, r) for t, p, r in points]
        return self._mixed(x, *torch.tensor(facts, dtype=torch.float64).to(x).T.reshape(4, -1, 1, 1))

    def _mixed(self, x: torch.Tensor, alpha: Any, sigma: Any, p: Any, r: Any) -> torch.Tensor:
        """p x0 + r eps, of numbers for all samples or [batch, 1, 1] for each."""
        means, variances = self.means.to(x), self.variances.to(x)
        total = alpha * alpha * variances + sigma * sigma
        offset = x.reshape(len(x), 1, -1) - alpha * means
        scaled = offset / total
        log_g = self.log_weights.to(x) - 0.5 * (offset * scaled).sum(-1) - 0.5 * total.log().sum(-1)
        gain = p * alpha * variances + r * sigma
        out = p * means + gain * scaled
        return torch.einsum("bk,bkd->bd", log_g.softmax(1), out).reshape(x.shape)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n exact data samples [n, *shape] in float64."""
        which = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[which] + self.variances[which].sqrt() * noise).reshape(n, *self.shape)


def ring_mixture(path: Path, centre: tuple[float, float] = (0.0, 0.0)) -> GaussianMixture:
    """gmm2d: 8 Gaussians of standard deviation 0.15 on a circle of radius 2."""
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = 2 * torch.stack([angles.cos(), angles.sin()], dim=1) + torch.tensor(centre, dtype=torch.float64)
    return GaussianMixture(path, means, torch.full((8,), 0.15**2, dtype=torch.float64))


def image_mixture(
    path: Path, shape: tuple[int, int, int] = (3, 32, 32), components: int = 8, seed: int = 0
) -> GaussianMixture:
    """A mixture of smooth random images [channels, height, width] in about [-1, 1], of any size."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(components, shape[0], 4, 4, generator=generator, dtype=torch.float64)
    means = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic", align_corners=False)
    return GaussianMixture(path, 0.5 * means.tanh(), torch.full((components,), 0.1**2, dtype=torch.float64))
