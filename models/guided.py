"""Guidance by another model, and guidance on an interval of noise levels alone.

    D_w = D + w (D - D_guide) = D_guide + s (D - D_guide),   s = 1 + w

at the same x and lambda: the guide stands where classifier-free guidance (arXiv 2207.12598) has the network without a
class. It is an unconditional network in EDM2 (arXiv 2312.02696), a weaker one of the same task in autoguidance (arXiv
2406.02507). What is linear in D and x (eps, velocity, v) is guided alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser, Point, Wrapped
from fastsample.models.foreign.diffusers_network import PipelineNetwork
from fastsample.models.held import Held
from fastsample.models.public.model import PublicNetwork

__all__ = ["Guided", "GuidedWithin", "guided_by", "guided_within"]


class Guided(Wrapped):
    """A denoiser guided by another one, which is asked at the same lambda; an evaluation asks both.

    Args:
        weight: w above; 0 is the base alone.
    """

    def __init__(self, base: Denoiser, guide: Denoiser, weight: float) -> None:
        super().__init__(base)
        self.guide, self.weight = guide.on(base.path), weight

    def forwards(self, t: float) -> int:
        return self.base.forwards(t) + self.guide.forwards(t)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        own = self.base.combine(x, t, p, r)
        return own + self.weight * (own - self.guide.combine(x, t, p, r))

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        own = self.base.each(x, points, rows)
        return own + self.weight * (own - self.guide.each(x, points, rows))


class GuidedWithin(Wrapped):
    """Guided where low < sigma / alpha <= high, and as `base` elsewhere, at its cost (arXiv 2404.07724)."""

    def __init__(self, base: Denoiser, guided: Denoiser, low: float, high: float) -> None:
        super().__init__(base)
        self.guided, self.low, self.high = guided, low, high

    def _at(self, t: float) -> Denoiser:
        return self.guided if self.low < self.path.nsr(t) <= self.high else self.base

    def forwards(self, t: float) -> int:
        return self._at(t).forwards(t)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return self._at(t).combine(x, t, p, r)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        out = torch.empty_like(x)
        for denoiser in (self.base, self.guided):
            if places := [i for i, (t, _, _) in enumerate(points) if self._at(t) is denoiser]:
                out[places] = denoiser.each(x[places], [points[i] for i in places], [rows[i] for i in places])
        return out


class _Two(nn.Module):
    """The networks of a model and of its guide as one, which one clock times; that of an exact model is None."""

    def __init__(self, own: nn.Module | None, guide: nn.Module | None) -> None:
        super().__init__()
        self.own, self.guide = own, guide

    def forward(self, x: torch.Tensor, *args: Any, which: str = "own") -> Any:
        return getattr(self, which)(x, *args)


class _Guide(nn.Module):
    """The guide's network inside a `_Two`, or inside a wrapper of it."""

    def __init__(self, two: nn.Module) -> None:
        super().__init__()
        self.two = two

    def forward(self, x: torch.Tensor, *args: Any) -> Any:
        return self.two(x, *args, which="guide")


def guided_by(model: Model, guide: Model) -> Model:
    """The model guided by another: the guidance weight that its `make` takes is w of D + w (D - D_guide).

    A conditional guide has the labels of the model's samples. Paths of other kinds meet at equal lambda.

    Raises:
        ValueError: for a guide that cannot be asked where the model is, or is the model itself.
    """
    if why := _unfit(model, guide):
        raise ValueError(f"{guide.id} cannot guide {model.id}: {why}")

    def make(module: nn.Module | None, labels: torch.Tensor | None, guidance: float, precision: str | None) -> Denoiser:
        own = model.make(module, labels, 0.0, precision)
        if not guidance:
            return own
        given = labels if guide.num_classes else None
        return Guided(own, guide.make(None if module is None else _Guide(module), given, 0.0, precision), guidance)

    parts = [one.held for one in (model, guide) if one.held]
    held = Held(None, lambda: _Two(model.network, guide.network).eval(), parts) if parts else None
    known = " ".join(filter(None, (guide.sha256, guide.conditions))) or "exact"
    return replace(model, held=held, make=make, guide=f"{guide.id} ({known})")


def guided_within(model: Model, low: float | None, high: float | None) -> Model:
    """The model whose guidance acts where low < sigma / alpha <= high alone; None is no limit."""

    def make(module: nn.Module | None, labels: torch.Tensor | None, guidance: float, *rest: Any) -> Denoiser:
        guided = model.make(module, labels, guidance, *rest)
        ends = low or 0.0, math.inf if high is None else high
        return GuidedWithin(model.make(module, labels, 0.0, *rest), guided, *ends) if guidance else guided

    return replace(model, make=make, guided_within=(low, high))


def _unfit(model: Model, guide: Model) -> str:
    """Why one model cannot guide another; "" if it can."""
    if (guide.id, guide.sha256, guide.conditions) == (model.id, model.sha256, model.conditions):
        return "a model that guides itself changes nothing"
    if guide.shape != model.shape:
        return f"its samples are {_size(guide)}, and those of {model.id} {_size(model)}"
    if _units(guide) != _units(model):
        return f"its samples are no latents of the first stage of {model.id}, or have another range"
    if guide.num_classes not in (0, model.num_classes):
        return f"it has {guide.num_classes} classes, and {model.id} {model.num_classes or 'none'}"
    if guide.path.name != "edm" and guide.path.lam(guide.path.t_noise) > model.path.lam(model.path.t_noise) + 1e-9:
        noise = guide.path.nsr(guide.path.t_noise)
        return f"its path begins at sigma {noise:.4g}, after {model.id}'s; --sigma-max {0.99 * noise:.3g} is on it"
    return ""


def _size(model: Model) -> str:
    return "x".join(map(str, model.shape))


def _units(model: Model) -> tuple[Any, ...]:
    """What numbers in its samples mean."""
    network = model.network
    return network.units if isinstance(network, PublicNetwork | PipelineNetwork) else ("[-1,1]", (1.0,), (0.0,), "")
