"""Training losses: the distance between what a network says of a noisy sample and what it should have said.

With e = network - target, d the number of dimensions and c = 0.00054 d (arXiv 2405.20320):

    squared           |e|^2 / d
    huber             (sqrt(|e|^2 + c^2) - c) / d
    lpips-huber       (1 - u) huber + LPIPS(xhat, x_0)                    configurations E
    lpips-huber-1/t   (1 - u) huber + LPIPS(xhat, x_0) / u                and F of that paper

where u = sigma / (alpha + sigma) is the noise share and xhat the data prediction that follows from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastsample.models.denoiser import convert, weights
from fastsample.models.training.couplings import Coupling
from fastsample.models.training.recipe import Recipe

__all__ = ["HUBER_C", "Batch", "Objective", "numbers_of", "pseudo_huber"]

HUBER_C = 0.00054
_LEAST_SHARE = 1e-5  # of noise, where LPIPS / u is evaluated


@dataclass(frozen=True)
class Batch:
    """What a step draws before it computes.

    Attributes:
        x0, noise: [n, *shape].
        times: n, of the path.
        labels: one-hot, or None.
        numbers: those of the times, see `numbers_of`, where the others are; None to have them computed.
        state: of the host's generator after the draws: dropout goes on from there.
    """

    x0: Tensor
    noise: Tensor
    times: tuple[float, ...]
    labels: Tensor | None = None
    numbers: Tensor | None = None
    state: Tensor | None = None

    def __len__(self) -> int:
        return len(self.times)

    def part(self, rows: slice) -> Batch:
        """Some of its rows."""
        labels = None if self.labels is None else self.labels[rows]
        numbers = None if self.numbers is None else self.numbers[:, rows]
        return Batch(self.x0[rows], self.noise[rows], self.times[rows], labels, numbers)


def numbers_of(recipe: Recipe, times: Sequence[float]) -> Tensor:
    """What the loss needs of each time, float32 [9, n] on the host: one copy to a device instead of nine.

    The target's weights p and r, alpha, sigma, the label that the network is called with, the weights c_x and c_f of x
    and of the network in the data prediction, 1 - u, and u where something is divided by it; the last four for LPIPS.
    """
    convention = recipe.convention
    path, perceptual = convention.path, recipe.loss.startswith("lpips")
    columns = []
    for t in times:
        alpha, sigma = path.alpha(t), path.sigma(t)
        share = sigma / (alpha + sigma)
        data = convert(path, t, convention.prediction, (1.0, 0.0)) if perceptual else (0.0, 0.0)
        given = *weights(path, t, convention.prediction), alpha, sigma, convention.label(t)
        columns.append((*given, *data, 1 - share, max(share, _LEAST_SHARE)))
    return torch.tensor(columns, dtype=torch.float32).T.contiguous()


def pseudo_huber(e: Tensor) -> Tensor:
    """(sqrt(|e|^2 + c^2) - c) / d of errors [n, ...]: [n]; its gradient is finite at e = 0."""
    flat = e.flatten(1)
    d = flat.shape[1]
    c = HUBER_C * d
    return ((flat.square().sum(1) + c * c).sqrt() - c) / d


class Objective(nn.Module):
    """The loss of a recipe as a module over everything that is trained, so that it can be run data-parallel.

    Args:
        network: called as network(x, labels).
        coupling: with its encoder, if it has one.
        perceptual: LPIPS-like distance of images in [-1, 1], [n]; for the LPIPS losses.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, coupling: Coupling, perceptual: nn.Module | None) -> None:
        super().__init__()
        self.recipe, self.network, self.coupling = recipe, network, coupling
        self.perceptual = [perceptual]  # in a list: it is not trained, and no part of the state

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(loss [n] without penalty, penalty [n]), float32."""
        recipe, x0 = self.recipe, batch.x0
        z, penalty = self.coupling.joined(x0, batch.noise)
        numbers = numbers_of(recipe, batch.times).to(x0.device) if batch.numbers is None else batch.numbers
        p, r, alpha, sigma, _, c_x, c_f, _, _ = numbers.view(len(numbers), -1, *[1] * (x0.ndim - 1))
        _, _, _, _, labels, _, _, data_share, share = numbers
        x = alpha * x0 + sigma * z
        given = [labels] if batch.labels is None else [labels, batch.labels]
        out = self.network(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, *given).float()
        e = out - (p * x0 + r * z)
        if recipe.loss == "squared":
            loss = e.square().flatten(1).mean(1)
        elif recipe.loss == "huber":
            loss = pseudo_huber(e)
        else:
            (perceptual,) = self.perceptual
            assert perceptual is not None
            with torch.autocast(x0.device.type, enabled=False):  # differences of features need more than 8 bits
                distance = perceptual(c_x * x + c_f * out, x0)
            if recipe.loss == "lpips-huber-1/t":
                distance = distance / share
            loss = data_share * pseudo_huber(e) + distance
        return loss, torch.zeros_like(loss) if penalty is None else penalty
