"""Singlestep DPM-Solver: what its options do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import VPLinear
from fastsample.solvers.solver import get

PATH = VPLinear()
POINTS = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reference():
    return get("rk4").plan(PATH, 3000)(ring_mixture(PATH), POINTS)


@pytest.mark.parametrize("solver", ["dpm-solver-3", "dpmpp-3s"])
@pytest.mark.parametrize("solver_type", ["dpmsolver", "taylor"])
def test_third_order_in_fixed_mode(solver, solver_type, reference):
    denoiser, budgets = ring_mixture(PATH), [192, 384, 768]
    errors = [
        (get(solver).plan(PATH, nfe, mode="fixed", solver_type=solver_type)(denoiser, POINTS) - reference).norm().item()
        for nfe in budgets
    ]
    assert -np.polyfit(np.log(budgets), np.log(errors), 1)[0] > 2.8


def test_budget():
    fast, fixed = (get("dpmpp-3s").plan(PATH, 10, mode=mode) for mode in ("fast", "fixed"))
    assert [1 + len(r) for r in fast.arguments["interior"]] == [3, 3, 3, 1]
    assert [1 + len(r) for r in fixed.arguments["interior"]] == [3, 3, 3]


def test_interior_points_follow_the_grid():
    lam = [PATH.lam(t) for t in (1.0, 0.5005, 1e-3)]
    uniform = get("dpmpp-2s").plan(PATH, 2, "uniform").arguments["interior"]
    assert uniform[0][0] == pytest.approx((lam[1] - lam[0]) / (lam[2] - lam[0]), rel=1e-12)
    for options in ({"grid": "uniform", "ratios": "fixed"}, {"grid": "karras"}):
        assert get("dpmpp-2s").plan(PATH, 2, **options).arguments["interior"][0][0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "agile"}, "unknown mode"),
        ({"ratios": "half"}, "unknown ratios"),
        ({"order": 4}, "order runs from 1 to 3, not"),
        ({"solver_type": "rde"}, "unknown solver_type"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        get("dpmpp-2s").plan(PATH, 6, **options)(ring_mixture(PATH), POINTS)
