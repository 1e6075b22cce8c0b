"""Distributions of training times.

All are distributions of u in [0, 1], 0 at data and 1 at noise. Draws go through the inverse of the distribution
function with the uniform numbers of a batch stratified (arXiv 2107.00630, appendix I): each draw has exactly the
stated distribution, and a batch covers it evenly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

__all__ = ["AtNoise", "EdmLogNormal", "LogitNormal", "Times", "UShaped", "Uniform"]


class _Times(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """u [count], float64, from that generator of the host, PyTorch's default one if None."""
        first = torch.rand(1, dtype=torch.float64, generator=generator)
        return self.icdf((first + torch.arange(count, dtype=torch.float64) / count) % 1)

    @abstractmethod
    def icdf(self, q: Tensor) -> Tensor:
        """The u below which the share q of all draws lies."""

    @abstractmethod
    def cdf(self, u: Tensor) -> Tensor:
        """The share of draws below u."""

    @abstractmethod
    def pdf(self, u: Tensor) -> Tensor:
        """The density at u."""

    @property
    def of_noise_share(self) -> bool:
        """Whether u is sigma / (alpha + sigma), not the share of the path's own time."""
        return False


class Uniform(_Times):
    """p(u) = 1."""

    kind: Literal["uniform"] = "uniform"

    def icdf(self, q: Tensor) -> Tensor:
        return q

    def cdf(self, u: Tensor) -> Tensor:
        return u

    def pdf(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)


class LogitNormal(_Times):
    """logit u ~ N(mean, std^2) (arXiv 2403.03206, section 3.1)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)

    def icdf(self, q: Tensor) -> Tensor:
        return (self.mean + self.std * torch.special.ndtri(q.clamp(1e-12, 1 - 1e-12))).sigmoid()

    def cdf(self, u: Tensor) -> Tensor:
        return torch.special.ndtr((u.logit() - self.mean) / self.std)

    def pdf(self, u: Tensor) -> Tensor:
        z = (u.logit() - self.mean) / self.std
        return (-0.5 * z * z).exp() / (math.sqrt(2 * math.pi) * self.std * u * (1 - u))


class EdmLogNormal(LogitNormal):
    """ln(sigma / alpha) ~ N(-1.2, 1.2^2), EDM's noise levels (arXiv 2206.00364, table 1).

    The noise share u = sigma / (alpha + sigma) has logit u = ln(sigma / alpha).
    """

    kind: Literal["edm-log-normal"] = "edm-log-normal"  # type: ignore[assignment]
    mean: float = -1.2
    std: float = Field(default=1.2, gt=0)

    @property
    def of_noise_share(self) -> bool:
        return True


class UShaped(_Times):
    """p(u) = a (e^(a u) + e^(a (1 - u))) / (2 (e^a - 1)), rfpp's (arXiv 2405.20320).

    The paper prints e^(a u) + e^(-a u), which rises over [0, 1]; this is what its code trains with.
    """

    kind: Literal["u-shaped"] = "u-shaped"
    a: float = Field(default=4.0, gt=0)

    def icdf(self, q: Tensor) -> Tensor:
        return 0.5 + torch.asinh((2 * q - 1) * math.sinh(0.5 * self.a)) / self.a

    def cdf(self, u: Tensor) -> Tensor:
        return 0.5 + 0.5 * torch.sinh(self.a * (u - 0.5)) / math.sinh(0.5 * self.a)

    def pdf(self, u: Tensor) -> Tensor:
        return 0.5 * self.a * torch.cosh(self.a * (u - 0.5)) / math.sinh(0.5 * self.a)


class AtNoise(_Times):
    """u = 1 always: with pairs of a teacher this is the one-step distillation of rectified flow (arXiv 2209.03003)."""

    kind: Literal["at-noise"] = "at-noise"

    def icdf(self, q: Tensor) -> Tensor:
        return torch.ones_like(q)

    def cdf(self, u: Tensor) -> Tensor:
        return (u >= 1).to(u.dtype)

    def pdf(self, u: Tensor) -> Tensor:
        return torch.where(u == 1, torch.inf, 0.0).to(u.dtype)


Times = Annotated[Uniform | LogitNormal | EdmLogNormal | UShaped | AtNoise, Field(discriminator="kind")]
