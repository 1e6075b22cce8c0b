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
