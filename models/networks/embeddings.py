"""Embeddings of the noise label that the network families share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Fourier", "sinusoidal"]


def sinusoidal(t: Tensor, dim: int, *, endpoint: float = False, sin_first: bool = False) -> Tensor:
    """[cos, sin] of t 10000^(-i/half), i = 0..half-1, half = dim / 2 (arXiv 1706.03762).

    The DDPM family (arXiv 2006.11239) divides by half - 1 (`endpoint`) and puts the sines first
    (`sin_first`); ADM, DiT and EDM's DhariwalUNet do neither.

    Args:
        t: [batch], of any real dtype; fractional values are kept.
        dim: even width of the embedding.

    Returns:
        [batch, dim], in float32, or in float64 if t is.
    """
    half = dim // 2
    t = _floating(t)
    exponent = torch.arange(half, dtype=t.dtype, device=t.device) / (half - endpoint)
    angle = t[:, None] * (1 / 10000) ** exponent
    return torch.cat([angle.sin(), angle.cos()] if sin_first else [angle.cos(), angle.sin()], dim=1)


class Fourier(nn.Module):
    """[sin, cos] of 2 pi f t with random frequencies f ~ N(0, scale^2) that belong to the checkpoint."""

    freqs: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        angle = _floating(t)[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def _floating(t: Tensor) -> Tensor:
    """Half precision and integers are too coarse for an angle: float32, but float64 stays."""
    return t if t.dtype == torch.float64 else t.float()
