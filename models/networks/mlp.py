"""Multilayer perceptrons for points of the plane and for tiny images: a training takes seconds to minutes on a CPU.

All take the time as sines and cosines of pi/2 times a ladder of frequencies, and reach a last layer that can start at
zero: an encoder of a learned coupling then begins as the independent coupling.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP", "ResidualMLP"]


class _Ladder(nn.Module):
    """[sin, cos] of pi/2 2^(k/per_octave) t, k = 0..count-1: [batch, 2 count]."""

    frequencies: Tensor

    def __init__(self, count: int, per_octave: int) -> None:
        super().__init__()
        exponents = torch.arange(count, dtype=torch.float32) / per_octave
        self.register_buffer("frequencies", 0.5 * math.pi * 2**exponents, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t.float()[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def _last(width: int, out: int, zero: bool) -> nn.Linear:
    layer = nn.Linear(width, out)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """SiLU layers on points.

    Args:
        channels: coordinates of a point.
        out_channels: outputs.
        width, layers: of the hidden layers.
        time: whether the time is an input; without, the second argument of `forward` is ignored.
        input_scale: factor on the points.
        zero_last: start the last layer at zero.
    """

    def __init__(
        self,
        channels: int = 2,
        out_channels: int = 2,
        width: int = 128,
        layers: int = 3,
        time: bool = True,
        input_scale: float = 1.0,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.ladder = _Ladder(8, 1) if time else None
        self.input_scale = input_scale
        sizes = [channels + 16 * time] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.last = _last(width, out_channels, zero_last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[batch, out_channels] of points [batch, channels] and times [batch]."""
        h = x * self.input_scale
        if self.ladder is not None:
            h = torch.cat([h, self.ladder(t)], dim=1)
        for layer in self.hidden:
            h = F.silu(layer(h))
        out: Tensor = self.last(h)
        return out


class ResidualMLP(nn.Module):
    """Blocks h + Linear(SiLU(LayerNorm(h) + e(t))) on flattened images; the last layer starts at zero.

    Args:
        img_resolution: side of the square images in pixels.
        in_channels, out_channels: colour channels in and out.
        width, blocks: size of the trunk.
        time: whether the time is an input; without, the second argument of `forward` is ignored.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 384,
        blocks: int = 4,
        time: bool = True,
    ) -> None:
        super().__init__()
        self.shape = (out_channels, img_resolution, img_resolution)
        pixels = img_resolution**2
        self.first = nn.Linear(in_channels * pixels, width)
        self.time = (
            nn.Sequential(_Ladder(16, 2), nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width)) if time else None
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.last = _last(width, out_channels * pixels, zero=True)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """[batch, out_channels, R, R] of images [batch, in_channels, R, R] and times [batch]."""
        h = self.first(x.flatten(1))
        e = 0.0 if self.time is None else self.time(t)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h = h + block(F.silu(norm(h) + e))
        out: Tensor = self.last(h).reshape(-1, *self.shape)
        return out
