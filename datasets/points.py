"""Points of the plane on which couplings are studied: distributions that a picture shows whole.

Each set is 2^20 points drawn from its own fixed seed, more than a small run sees, so no point comes twice.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["POINTS", "Points", "points_named"]

_COUNT = 2**20


@dataclass(frozen=True)
class Points:
    """Points in memory.

    Attributes:
        values: float32 [N, 2].
        prior_std: standard deviation of the noise that belongs to the set, per coordinate.
    """

    name: str
    split: str
    values: Tensor = field(repr=False)
    prior_std: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (2,)

    @property
    def labels(self) -> Tensor:
        """All 0: the points have no classes."""
        return torch.zeros(len(self), dtype=torch.int64)

    def signal(self, index: Tensor) -> Tensor:
        """The points of those indices, float32 [n, 2]."""
        return self.values[index.to(self.values.device)]

    def on(self, device: str) -> Points:
        """The same with its values on a device."""
        return replace(self, values=self.values.to(device))

    @cached_property
    def sha256(self) -> str:
        """Of the values."""
        return hashlib.sha256(self.values.numpy().data).hexdigest()


def _gauss8(n: int, g: torch.Generator) -> Tensor:
    angle = torch.randint(8, (n,), generator=g) * (math.pi / 4)
    return 4 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.2 * torch.randn(n, 2, generator=g)


def _two_modes(n: int, g: torch.Generator) -> Tensor:
    side = 2.0 * torch.randint(2, (n,), generator=g) - 1
    centre = torch.stack([8 * side, torch.full((n,), 8.0)], dim=1)
    return centre + torch.tensor([3.0, 0.1]).sqrt() * torch.randn(n, 2, generator=g)


def _checker(n: int, g: torch.Generator) -> Tensor:
    square = torch.randint(8, (n,), generator=g)
    column, row = square % 4, square // 4 * 2
    corner = torch.stack([column - 2, row + column % 2 - 2], dim=1)
    return 2 * (corner + torch.rand(n, 2, generator=g))


_Draw = Callable[[int, torch.Generator], Tensor]
POINTS: dict[str, tuple[str, _Draw, tuple[float, float]]] = {
    "gauss8": ("8 Gaussians of standard deviation 0.2 on a circle of radius 4", _gauss8, (1.0, 1.0)),
    # The demonstration of sangyun884/fast-ode, with its prior N(0, diag(36, 1)).
    "two_modes": ("two Gaussians N((-8, 8), diag(3, 0.1)) and N((8, 8), diag(3, 0.1))", _two_modes, (6.0, 1.0)),
    "checker": ("8 of the 16 squares of a board on [-4, 4]^2", _checker, (1.0, 1.0)),
}


def points_named(name: str) -> Points:
    """The set of that name.

    Raises:
        KeyError: for a name that is not in `POINTS`.
    """
    _, draw, prior_std = POINTS[name]
    generator = torch.Generator().manual_seed(2 * list(POINTS).index(name))
    return Points(name, "train", draw(_COUNT, generator), prior_std)
