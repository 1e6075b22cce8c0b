"""Network calls, counted where they are made and by what they are made for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fastsample.models.denoiser import Denoiser, Point, Wrapped
from fastsample.models.precision import matmul

__all__ = ["Ledger", "Purpose"]

Purpose = Literal["sampling", "references", "metrics"]  # the last one makes no evaluations


@dataclass
class Ledger:
    """Evaluations of a run, each of one sample, and the network calls that they make: two with guidance.

    Attributes:
        evaluations, calls: made so far.
        tick: hears of evaluations as they are made, and of what is begun.
    """

    evaluations: Counter[Purpose] = field(default_factory=Counter)
    calls: Counter[Purpose] = field(default_factory=Counter)
    tick: Callable[[Purpose, int], None] = lambda purpose, evaluations: None

    def add(self, purpose: Purpose, evaluations: int, calls: int) -> None:
        """What was made."""
        self.evaluations[purpose] += evaluations
        self.calls[purpose] += calls
        self.tick(purpose, evaluations)

    def at(self, purpose: Purpose) -> None:
        """What is begun."""
        self.add(purpose, 0, 0)

    def counting(
        self, denoiser: Denoiser, purpose: Purpose, products: Literal["float32", "tf32"] = "float32"
    ) -> Denoiser:
        """The denoiser, whose calls are entered here, and whose matrix products are made as told."""
        return _Counted(denoiser, self, purpose, products)


class _Counted(Wrapped):
    def __init__(self, base: Denoiser, ledger: Ledger, purpose: Purpose, products: Literal["float32", "tf32"]) -> None:
        super().__init__(base)
        self.ledger, self.purpose, self.products = ledger, purpose, products

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        with matmul(self.products):
            answer = super()._combine(x, t, p, r)
        self.ledger.add(self.purpose, len(x), len(x) * self.forwards(t))
        return answer

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        with matmul(self.products):
            answer = super()._each(x, points, rows)
        self.ledger.add(self.purpose, len(points), sum(self.forwards(t) for t, _, _ in points))
        return answer
