"""The losses: zero for the true answer, the published formulas for a false one, finite gradients at both ends."""

import math

import pytest
import torch
from torch import nn

from fastsample.models.denoiser import weights
from fastsample.models.training.couplings import Coupling
from fastsample.models.training.losses import HUBER_C, Batch, Objective, pseudo_huber

IMAGE = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
TIMES = (0.02, 0.3, 0.7, 0.98)


class Knowing(nn.Module):
    """Knows the data's only image, so it can recover eps, hence every target; wrong by `error`."""

    def __init__(self, recipe, error=0.0):
        super().__init__()
        self.recipe, self.error = recipe, nn.Parameter(torch.tensor(error))

    def forward(self, x, labels):
        path, out = self.recipe.convention.path, []
        for row, label in zip(x.double(), labels.double(), strict=True):
            t = (float(label) - self.recipe.time_shift) / self.recipe.time_scale
            eps = (row - path.alpha(t) * IMAGE[0]) / path.sigma(t)
            p, r = weights(path, t, self.recipe.prediction)
            out.append(p * IMAGE[0] + r * eps)
        return torch.stack(out) + self.error


class Squares(nn.Module):
    """A stand-in for LPIPS with a known value."""

    def forward(self, a, b):
        return (a - b).square().flatten(1).mean(1)


def batch(times=TIMES):
    torch.manual_seed(1)
    return Batch(IMAGE.expand(len(times), -1, -1, -1), torch.randn(len(times), 3, 8, 8), times)


def loss_of(recipe, error, times=TIMES):
    return Objective(recipe, Knowing(recipe, error), Coupling(), Squares())(batch(times))


@pytest.mark.parametrize("loss", ["squared", "huber", "lpips-huber", "lpips-huber-1/t"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "velocity", "v"])
@pytest.mark.parametrize("path", ["vp-linear", "flow", "flow-cosine"])
def test_the_loss_is_zero_for_the_true_answer(toy, path, prediction, loss):
    recipe = toy(path=path, prediction=prediction, loss=loss)
    for value in loss_of(recipe, 0.0):
        assert value.shape == (4,)
        assert value.abs().max() < 1e-5
    assert loss_of(recipe, 0.5)[0].min() > 1e-5


@pytest.mark.parametrize("scale", [(1000.0, 0.0), (-1.0, 1.0)])
def test_losses_are_the_published_formulas(toy, scale):
    """On the linear path with an error of 0.3 in each of 192 dimensions; xhat - x_0 is u times it."""
    u, d = 1 - torch.tensor(TIMES), 192
    squares, c = 0.3**2 * d, HUBER_C * d
    huber = torch.full((4,), (math.sqrt(squares + c * c) - c) / d)
    lpips = (0.3 * u).square()
    known = {
        "squared": torch.full((4,), 0.09), "huber": huber, "lpips-huber": (1 - u) * huber + lpips,
        "lpips-huber-1/t": (1 - u) * huber + lpips / u,
    }  # fmt: skip
    for name, expected in known.items():
        recipe = toy(loss=name, time_scale=scale[0], time_shift=scale[1])
        torch.testing.assert_close(loss_of(recipe, 0.3)[0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["huber", "lpips-huber", "lpips-huber-1/t"])
def test_gradients_are_finite_at_both_ends(toy, loss):
    """At the noise end u is 1, and LPIPS alone is left; at the data end it is divided by next to nothing."""
    objective = Objective(recipe := toy(loss=loss), Knowing(recipe, 0.3), Coupling(), Squares())
    objective(batch((0.0, 1e-5, 1 - 1e-5)))[0].sum().backward()
    assert objective.network.error.grad.isfinite()
    at_noise = loss_of(recipe, 0.3, (0.0,))[0].item()
    c = HUBER_C * 192
    assert at_noise == pytest.approx(0.09 if "lpips" in loss else (math.sqrt(0.09 * 192 + c * c) - c) / 192, rel=1e-3)


def test_pseudo_huber():
    e = torch.zeros(2, 3, 8, 8, requires_grad=True)
    pseudo_huber(e).sum().backward()
    assert e.grad.abs().max() == 0
    d = 3072
    small, large = (pseudo_huber(torch.full((1, d), size)).item() for size in (1e-4, 10.0))
    assert small == pytest.approx(1e-8 * d / (2 * 0.00054 * d) / d, rel=0.02)  # |e|^2 / (2 c d)
    assert large == pytest.approx((10 * math.sqrt(d) - 0.00054 * d) / d, rel=1e-3)
