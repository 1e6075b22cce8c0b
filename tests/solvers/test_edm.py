"""EDM's samplers: the published count of evaluations, the midpoint, the churn."""

import math

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import Edm
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace

PATH = Edm()
POINTS = 80 * torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noise(step):
    return torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(step))


def test_published_heun_makes_2n_less_1_evaluations():
    denoiser = ring_mixture(PATH)
    plan = get("edm-heun").plan(PATH, 35, denoise=True)
    plan(denoiser, POINTS)
    assert (len(plan.times), denoiser.nfe) == (18, 35)


def test_r_of_one_is_heun():
    heun = get("edm-heun").plan(PATH, 20)(ring_mixture(PATH), POINTS)
    dpm2 = get("edm-dpm2").plan(PATH, 20, r=1.0)(ring_mixture(PATH), POINTS)
    assert torch.allclose(heun, dpm2, rtol=0, atol=1e-10)


def test_no_churn_is_heun():
    still = get("edm-sde").plan(PATH, 20, S_churn=0.0)(ring_mixture(PATH), POINTS, noise)
    assert torch.equal(still, get("edm-heun").plan(PATH, 20)(ring_mixture(PATH), POINTS))


def test_churn_raises_sigma_between_its_bounds():
    plan = get("edm-sde").plan(PATH, 36, S_churn=1000.0, S_noise=1.0)
    table = trace(plan)
    for i, sigma in enumerate(plan.times[:-1]):
        gamma = math.sqrt(2) - 1 if 0.01 <= sigma <= 1.0 else 0.0
        assert table.times[2 * i] == pytest.approx(sigma * (1 + gamma))
        if gamma:
            assert table.w[2 * i, i] == pytest.approx(sigma)  # (1 + gamma)^2 - 1 = 1


def official(denoiser, x, sigmas, churn, low, high, scale):
    """edm_sampler of NVlabs/edm, generate.py, whose last sigma is 0; x starts at sigmas[0]."""
    steps, calls = [*sigmas, 0.0], 0
    for i, (s, t) in enumerate(zip(steps, steps[1:], strict=False)):
        gamma = min(churn / len(sigmas), math.sqrt(2) - 1) if low <= s <= high else 0
        raised = s + gamma * s
        x_hat = x + math.sqrt(raised**2 - s**2) * scale * noise(i)
        d = (x_hat - denoiser.x0(x_hat, raised)) / raised
        x, calls = x_hat + (t - raised) * d, calls + 1
        if i < len(sigmas) - 1:
            d_prime = (x - denoiser.x0(x, t)) / t
            x, calls = x_hat + (t - raised) * (0.5 * d + 0.5 * d_prime), calls + 1
    return x, calls


@pytest.mark.parametrize(
    ("churn", "low", "high", "scale"),
    [(30.0, 0.01, 1.0, 1.007), (80.0, 0.05, 50.0, 1.003), (40.0, 0.0, 1e12, 1.0), (5.0, 0.002, 80.0, 1.1)],
)
def test_it_is_the_official_sampler_to_its_last_churn(churn, low, high, scale):
    ours = ring_mixture(PATH)
    options = {"S_churn": churn, "S_min": low, "S_max": high, "S_noise": scale}
    plan = get("edm-sde").plan(PATH, 35, denoise=True, **options)
    expected, calls = official(ring_mixture(PATH), POINTS, plan.times, churn, low, high, scale)
    torch.testing.assert_close(plan(ours, POINTS, noise), expected, rtol=0, atol=1e-10)
    assert ours.nfe == calls == 35
    last = trace(plan)
    raised = low <= 0.002
    assert (last.times[-1] > 0.002 + 1e-6) == raised
    if (churn, low) == (30.0, 0.01):
        torch.testing.assert_close(get("edm-sde").plan(PATH, 35, denoise=True)(ours, POINTS, noise), expected)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("edm-dpm2", {"r": 0.0}, "r runs from 0.05 to 1, not 0"),
        ("edm-dpm2", {"r": 2.0}, "r runs from 0.05 to 1, not 2"),
        ("edm-sde", {"S_noise": float("nan")}, "S_noise runs from 0 to 10, not nan"),
        ("edm-sde", {"S_churn": -1.0}, r"S_churn runs from 0 to 1e\+06, not -1"),
        ("ddpm", {"eta": 1.5}, "eta runs from 0 to 1, not 1.5"),
    ],
)
def test_options_have_ranges(name, options, told):
    with pytest.raises(ValueError, match=told):
        get(name).plan(PATH, 8, **options)
