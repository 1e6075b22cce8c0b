"""Samplers of the form sample_xxx(model, x, sigmas, ...) as solvers."""

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers import solver as registry
from fastsample.solvers.k_diffusion import register_k_diffusion, table_of_function
from fastsample.solvers.proofs import claims as verify
from fastsample.solvers.proofs.claims import Claim, start, table_error
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace


def derivative(x, sigma, denoised):
    return (x - denoised) / sigma.reshape(-1, *[1] * (x.ndim - 1))


@torch.no_grad()
def sample_first(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's method."""
    ones = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **(extra_args or {}))
        if callback is not None:
            callback({"i": i, "x": x})
        x = x + derivative(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i])
    return x


@torch.no_grad()
def sample_trapezoid(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Heun's method; Euler where the step ends at 0."""
    ones = x.new_ones([x.shape[0]])
    for low, high in zip(sigmas[1:], sigmas[:-1], strict=True):
        slope_high = derivative(x, high, model(x, high * ones))
        guess = x + slope_high * (low - high)
        if low == 0:
            x = guess
        else:
            x += (slope_high + derivative(guess, low, model(guess, low * ones))) * (low - high) / 2
    return x


@torch.no_grad()
def sample_multistep(model, x, sigmas, extra_args=None, callback=None, disable=None, blend=0.5):
    """Two-step extrapolation of the data prediction in lambda."""
    ones, older, before = x.new_ones([x.shape[0]]), None, None
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones)
        h = sigmas[i].log() - sigmas[i + 1].log()
        mean = denoised
        if older is not None and sigmas[i + 1] > 0:
            mean = torch.lerp(older, denoised, 1 + blend * (h / before))
        x = sigmas[i + 1] / sigmas[i] * x - torch.expm1(-h) * mean
        older, before = denoised, h
    return x


# function, order, evaluations of a step
FUNCTIONS = {
    "first": (sample_first, 1, 1), "trapezoid": (sample_trapezoid, 2, 2), "multistep": (sample_multistep, 2, 1),
}  # fmt: skip


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))
    for name, (function, order, evaluations) in FUNCTIONS.items():
        register_k_diffusion(f"k-{name}", function, title=name, paper="", order=order, evaluations=evaluations)


def adapted(denoiser):
    return lambda x, sigma, **_: denoiser.x0(x, float(sigma[0]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_function(name, registered):
    path, solver = Edm(), get(f"k-{name}")
    denoiser, x = ring_mixture(path), 80 * start()
    plan = solver.plan(path, 12)
    direct = FUNCTIONS[name][0](adapted(denoiser), x.clone(), torch.tensor(plan.times, dtype=torch.float64))
    torch.testing.assert_close(plan(denoiser, x), direct, rtol=0, atol=1e-11)
    assert denoiser.nfe == 24
    # With the customary 0 at the end the last step returns the data prediction.
    ended = solver.plan(path, 13, denoise=True)
    sigmas = torch.tensor([*ended.times, 0.0], dtype=torch.float64)
    direct = FUNCTIONS[name][0](adapted(denoiser), x.clone(), sigmas)
    torch.testing.assert_close(ended(denoiser, x), direct, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_proven_like_any_other(name, registered, monkeypatch):
    claim = Claim(get(f"k-{name}"), {})
    monkeypatch.setattr(verify, "BUDGETS", (40, 60, 90, 136))
    points = verify.errors(claim, "gmm2d")
    assert verify.converges(claim, verify.slope(points)), points
    for path in (VPLinear(), LinearFlow(), Edm()):
        plan = claim.solver.plan(path, 10)
        assert trace(plan).nfe == 10
        assert table_error(plan, ring_mixture(path)) < 1e-12


def test_its_known_twins(registered):
    denoiser = ring_mixture(VPLinear())
    for name, twin in (("k-first", "edm-euler"), ("k-trapezoid", "edm-heun")):
        results = [get(text).plan(denoiser.path, 8, "karras")(denoiser, start()) for text in (name, twin)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-11)


def test_arguments_reach_the_function():
    plain, other = (table_of_function(sample_multistep, (10.0, 3.0, 1.0, 0.1), blend=blend) for blend in (0.5, 0.0))
    assert (plain.b != other.b).any()


def noisy(model, x, sigmas, extra_args=None, disable=None):
    return sample_first(model, x, sigmas) + torch.randn_like(x)


def clipped(model, x, sigmas, extra_args=None, disable=None):
    return sample_first(lambda x, sigma: model(x, sigma).clamp(-1, 1), x, sigmas)


def adaptive(model, x, sigmas, extra_args=None, disable=None):
    x = sample_first(model, x, sigmas)
    return sample_first(model, x, sigmas[-2:]) if x.abs().max() > 0 else x


@pytest.mark.parametrize("function", [noisy, clipped, adaptive])
def test_what_has_no_table_is_refused(function):
    with pytest.raises(ValueError, match=f"{function.__name__} is not made of vector operations alone"):
        table_of_function(function, (10.0, 3.0, 1.0, 0.1))
