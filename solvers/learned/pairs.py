"""What a fit is judged on: pairs of a noise and its exact solution, and the loss between a result and the solution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.results.training import TrainedOn
from fastsample.solvers.table import Table, play

__all__ = ["MSE", "PSNR", "Loss", "Pairs", "mean_psnr", "radius"]


@dataclass(frozen=True)
class Pairs:
    """Noises and their exact solutions.

    Attributes:
        x: [n, ...] starting points, prior_std times standard normal noise; y: [n, ...] solutions at t_data.
        make: the denoiser for pairs of these indices (it may depend on their labels); indices may repeat.
        peak: peak-to-peak range R of the PSNR 10 log10(R^2 / MSE).
    """

    x: torch.Tensor
    y: torch.Tensor
    make: Callable[[Sequence[int]], Denoiser]
    peak: float = 2.0

    def psnr(self, table: Table, batch: int = 256) -> np.ndarray:
        """PSNR [n] in dB of the table's results, not clamped."""
        parts = []
        for low in range(0, len(self.x), batch):
            index = range(low, min(low + batch, len(self.x)))
            mse = _mean_square(
                play(table, self.make(index), self.x[index.start : index.stop]), self.y[low : low + batch]
            )
            parts.append(20 * np.log10(self.peak) - 10 * torch.log10(mse.clamp(min=1e-20)).cpu().numpy())
        return np.concatenate(parts)

    def subset(self, chosen: np.ndarray) -> Pairs:
        """The pairs of these numbers."""
        x, y = self.x[chosen], self.y[chosen]
        return replace(self, x=x, y=y, make=lambda index: self.make([int(chosen[i]) for i in index]))


@dataclass(frozen=True)
class Loss:
    """A loss that is a sum of squares, of the results or of features of theirs, so that Gauss-Newton serves it.

    Attributes:
        name: as the command line has it; trained_on: what it is, as a row says it.
        log: the mean over pairs of the logarithm of the squares, which weights each pair by 1 / its square; else of the
            squares themselves.
        features: [n, m] of results [n, ...], whose square distance is the loss; None for the results themselves.
    """

    name: str
    trained_on: TrainedOn = "squared error"
    log: bool = True
    features: Callable[[torch.Tensor], torch.Tensor] | None = None

    def score(self, table: Table, pairs: Pairs, batch: int = 256) -> float:
        """The loss as decibels, larger ones better: the mean PSNR, or that of the mean square; -inf if not finite."""
        if self.log:
            return mean_psnr(table, pairs, batch)
        each = torch.cat([self._each(table, pairs, low, batch) for low in range(0, len(pairs.x), batch)])
        peak = 1.0 if self.features else pairs.peak
        value = 20 * np.log10(peak) - 10 * np.log10(max(float(each.mean()), 1e-20))
        return float(value) if np.isfinite(value) else -np.inf

    def residuals(
        self, result: torch.Tensor, moves: torch.Tensor, y: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Differences [n, ...] from the solutions and their derivatives [entries, n, ...], of some pairs at a time."""
        if self.features is None:
            yield result - y, moves
            return
        size = moves.flatten(2).norm(dim=2).clamp(min=1e-30)
        step = torch.finfo(torch.float32).eps ** 0.5 * result.flatten(1).norm(dim=1) / size  # features are float32
        for k in range(len(result)):  # the features of an image are many
            here, apart = self.features(result[k : k + 1]), step[:, k].reshape(-1, *[1] * (result.ndim - 1))
            moved = self.features(result[k] + apart * moves[:, k])
            yield here - self.features(y[k : k + 1]), ((moved - here) / step[:, k, None])[:, None]

    def weights(self, error: torch.Tensor) -> torch.Tensor:
        """[n] of the residuals of pairs."""
        squares = error.double().square().flatten(1).sum(1).clamp(min=1e-30)
        return (squares**-0.5 if self.log else torch.ones_like(squares)).to(error)

    def soften(self, table: Table, pairs: Pairs, batch: int = 256) -> Pairs:
        """The pairs with noises moved to where the loss is less, by at most `radius`.

        One step of that length down the gradient, kept where the loss fell. It is the one place where the network is
        differentiated.
        """
        moved = []
        for low in range(0, len(pairs.x), batch):
            x = pairs.x[low : low + batch]
            most = radius(pairs, table.nfe) * pairs.make([low]).path.prior_std
            with torch.enable_grad():
                leaf = x.detach().clone().requires_grad_()
                before = self._each(table, pairs, low, batch, leaf)
                (slope,) = torch.autograd.grad(before.sum(), leaf)
            length = slope.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, *[1] * (x.ndim - 1))
            near = x - most * slope / length
            fell = self._each(table, pairs, low, batch, near) < before.detach()
            moved.append(torch.where(fell.reshape(length.shape), near, x))
        return replace(pairs, x=torch.cat(moved))

    def _each(self, table: Table, pairs: Pairs, low: int, batch: int, x: torch.Tensor | None = None) -> torch.Tensor:
        """The square [n] of each pair of a batch, from other noises if some are given."""
        index = range(low, min(low + batch, len(pairs.x)))
        y = pairs.y[index.start : index.stop]
        result = play(table, pairs.make(index), pairs.x[index.start : index.stop] if x is None else x)
        if self.features is None:
            return _mean_square(result, y)
        return (self.features(result) - self.features(y)).double().square().sum(1)


PSNR = Loss("psnr")
MSE = Loss("mse", log=False)


def radius(pairs: Pairs, nfe: int) -> float:
    """0.001 D / n^2 of LD3 (arXiv 2405.15506), in units of the noise; D are the numbers of a sample."""
    return 0.001 * pairs.x[0].numel() / nfe**2


def mean_psnr(table: Table, pairs: Pairs, batch: int = 256) -> float:
    """Mean PSNR in dB over pairs; -inf where a result is not finite."""
    value = float(pairs.psnr(table, batch).mean())
    return value if np.isfinite(value) else -np.inf


def _mean_square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double() - y.double()).square().flatten(1).mean(1)
