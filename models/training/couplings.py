"""Couplings: how a training batch pairs data x_0 with noise z.

A coupling draws the indices' data and noise without gradient, from a generator of the host, then `joined` makes z of
them, with gradient where an encoder takes part.
"""

from __future__ import annotations

from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

__all__ = ["Coupling", "LearnedCoupling", "MatchedCoupling", "TrainingData", "gaussian_kl"]


class TrainingData(Protocol):
    """What is trained on: `ImageDataset`, `Points` or `PairStore`."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def labels(self) -> Tensor:
        """Class of each sample, int64 [N]; all 0 where there are none."""

    @property
    def sha256(self) -> str:
        """Of everything that decides the values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""

    def __len__(self) -> int: ...

    def signal(self, index: Tensor) -> Tensor:
        """x_0 of those indices, float32 [n, *shape]."""


class Coupling(nn.Module):
    """The independent coupling, and the base of the others.

    Args:
        prior_std: standard deviation of the noise, per coordinate of the last axis, or 1.
    """

    prior_std: Tensor

    def __init__(self, prior_std: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.register_buffer("prior_std", torch.tensor(prior_std), persistent=False)
        self.scale = torch.tensor(prior_std)  # the same, which stays on the host

    def draw(
        self,
        data: TrainingData,
        index: Tensor,
        flip: bool,
        rows: slice = slice(None),
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(x_0, noise), both [n, *shape], where the data are and on the host, of some rows of a batch.

        Args:
            index: of the whole batch, which decides where in the generator's stream a row's numbers are.
            flip: half of the images are mirrored.
            rows: those that are read and returned.
            generator: PyTorch's default one if None.
        """
        x0 = data.signal(index[rows])
        if flip:
            mirrored = (torch.rand(len(index), generator=generator) < 0.5)[rows]
            x0 = torch.where(mirrored.view(-1, *[1] * (x0.ndim - 1)).to(x0.device), x0.flip(-1), x0)
        return x0, self.scale * torch.randn((len(index), *x0.shape[1:]), generator=generator)[rows]

    def joined(self, x0: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """(z [n, *shape], penalty [n] to be added to the loss, or None)."""
        return noise, None


class MatchedCoupling(Coupling):
    """Minibatch optimal transport: noise permuted so that the sum of |x_0 - z|^2 is least (arXiv 2302.00482)."""

    def draw(
        self,
        data: TrainingData,
        index: Tensor,
        flip: bool,
        rows: slice = slice(None),
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        x0, noise = super().draw(data, index, flip, generator=generator)  # all: who is matched depends on all
        _, column = linear_sum_assignment(torch.cdist(x0.flatten(1).cpu(), noise.flatten(1)).square().numpy())
        return x0[rows], noise[column][rows]


class LearnedCoupling(Coupling):
    """z = s (mu(x_0) + exp(logvar(x_0) / 2) noise): the Gaussian encoder of fast-ode (arXiv 2301.12003).

    The encoder is a network called with the time label 1; its output has twice the channels of x_0. The prior's
    standard deviation s is taken out of it, so mu and logvar are in units of the prior. Gradients reach it through
    z in the network's input and in its target.

    Args:
        encoder: last layer at zero, so that training starts at the independent coupling.
        beta: weight of the penalty, the KL to the prior per dimension.
    """

    def __init__(self, encoder: nn.Module, beta: float, prior_std: tuple[float, ...] = (1.0,)) -> None:
        super().__init__(prior_std)
        self.encoder, self.beta = encoder, beta

    def posterior(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """(mu, logvar) [n, *shape] of q(z / s | x_0), float32."""
        mu, logvar = self.encoder(x0, x0.new_ones(len(x0))).float().chunk(2, dim=1)
        return mu, logvar

    def joined(self, x0: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        mu, logvar = self.posterior(x0)
        z = self.prior_std * mu + noise * (0.5 * logvar).exp()
        return z, self.beta * gaussian_kl(mu, logvar)


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) per dimension, [n]."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1)
