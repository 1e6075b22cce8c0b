"""dopri5: scipy's RK45, step by step."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.adaptive import integrate_adaptively
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace

PATH = LinearFlow()
POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_makes_the_steps_of_scipy(tolerance):
    ours, theirs = ring_mixture(PATH), ring_mixture(PATH)

    def u(t, y):
        return theirs.velocity(torch.as_tensor(y).reshape(16, 2), float(t)).numpy().ravel()

    expected = solve_ivp(u, (0.0, PATH.t_data), POINTS.numpy().ravel(), method="RK45", rtol=tolerance, atol=tolerance)
    run = integrate_adaptively(ours, POINTS, 0.0, PATH.t_data, tolerance, tolerance)
    assert ours.nfe == theirs.nfe == 2 + 6 * (run.accepted + run.rejected)
    assert run.accepted == len(expected.t) - 1
    assert np.abs(run.x.numpy().ravel() - expected.y[:, -1]).max() < 1e-10


def test_ignores_the_budget_and_has_no_table():
    results = [get("dopri5").plan(PATH, nfe)(ring_mixture(PATH), POINTS) for nfe in (5, 50)]
    assert torch.equal(*results)
    with pytest.raises(ValueError, match="adaptive: it has no coefficient table"):
        trace(get("dopri5").plan(PATH, 10))


def test_runs_on_another_path_in_float32():
    denoiser = ring_mixture(VPLinear())
    exact = get("rk4").plan(VPLinear(), 2000)(denoiser, POINTS)
    assert (get("dopri5").plan(VPLinear(), 10)(denoiser, POINTS.float()).double() - exact).abs().max() < 1e-3


def test_tolerances_and_breakdown():
    with pytest.raises(ValueError, match="tolerances must be positive"):
        get("dopri5").plan(PATH, 10, rtol=0.0)(ring_mixture(PATH), POINTS)
    with pytest.raises(ArithmeticError, match="the step fell to"):
        get("dopri5").plan(PATH, 10)(ring_mixture(PATH), POINTS * float("nan"))
