"""Training losses: a loss draws its own noise and times, so a coupling or another weighting is another function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastsample.models.denoiser import weights
from fastsample.models.training.config import Recipe

__all__ = ["Loss", "draw_times", "regression_loss"]

Loss = Callable[[nn.Module, Tensor, Recipe], Tensor]
"""loss(network, x_0 [batch, C, H, W] in [-1, 1], recipe) -> [batch] float32. Randomness comes from PyTorch's
default CPU generator, which the trainer seeds anew for each step."""


def draw_times(count: int, recipe: Recipe) -> list[float]:
    """`count` times between the ends of the recipe's path.

    "uniform", stratified over the batch (arXiv 2107.00630, appendix I), or "logit-normal", the
    sigmoid of a standard normal (arXiv 2403.03206, section 3.1), scaled to the interval.
    """
    low, high = sorted((recipe.noise_path.t_noise, recipe.noise_path.t_data))
    if recipe.times == "uniform":
        unit = (torch.rand(1, dtype=torch.float64) + torch.arange(count, dtype=torch.float64) / count) % 1
    else:
        unit = torch.randn(count, dtype=torch.float64).sigmoid()
    times: list[float] = (low + (high - low) * unit).tolist()
    return times


def regression_loss(network: nn.Module, x0: Tensor, recipe: Recipe) -> Tensor:
    """Mean over pixels of |network(x_t, time_scale t) - target|^2, x_t = alpha x_0 + sigma eps, eps ~ N(0, I).

    The target is what the recipe's network predicts: eps, x_0, the velocity or v.
    """
    path, times = recipe.noise_path, draw_times(len(x0), recipe)
    eps = torch.randn(x0.shape).to(x0.device)

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=x0.device).view(-1, 1, 1, 1)

    p, r = (column(list(pair)) for pair in zip(*(weights(path, t, recipe.prediction) for t in times), strict=True))
    x = column([path.alpha(t) for t in times]) * x0 + column([path.sigma(t) for t in times]) * eps
    labels = torch.tensor([recipe.time_scale * t for t in times], dtype=torch.float32, device=x0.device)
    out: Tensor = network(x.contiguous(memory_format=torch.channels_last), labels)
    return (out.float() - (p * x0 + r * eps)).square().mean(dim=(1, 2, 3))
