"""A denoiser that keeps a record of where it was asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastsample.models.denoiser import Denoiser, Point, Wrapped, data_prediction

__all__ = ["Recorder"]


class Recorder(Wrapped):
    """Answers like another denoiser and keeps the points at which it is asked.

    Attributes:
        points: (t, x) of each evaluation on the denoiser's path, oldest first; x holds one sample where each has a
            time of its own.
        first: the data prediction of the first evaluation; None where alpha is 0.
    """

    def __init__(self, base: Denoiser) -> None:
        super().__init__(base)
        self.points: list[tuple[float, torch.Tensor]] = []
        self.first: torch.Tensor | None = None

    def _combine(self, x: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        self.points.append((t, x))
        answer: torch.Tensor = super()._combine(x, t, p, r)
        if len(self.points) == 1:
            self.first = data_prediction(self.path, t, x, answer, p, r) if self.path.alpha(t) > 0 else None
        return answer

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        self.points += [(t, x[i : i + 1]) for i, (t, _, _) in enumerate(points)]
        return super()._each(x, points, rows)
