"""SciRE and SciREI: phi, splits of the budget, orders that options reach, errors."""

import math

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.recursive_difference import constant_phi, phi_1
from fastsample.solvers.solver import get

POINTS = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_phi():
    assert [phi_1(m) for m in (1, 2, 3, 4)] == pytest.approx([1, 1 / 2, 2 / 3, 5 / 8], abs=1e-15)
    assert phi_1(1000) == pytest.approx((math.e - 1) / math.e, abs=1e-15)
    assert constant_phi("limit") == pytest.approx((math.e - 1) / math.e, abs=1e-15)
    assert (constant_phi("m3"), constant_phi("fd"), constant_phi("0.7")) == (pytest.approx(2 / 3), 1, 0.7)


@pytest.mark.parametrize("phi", ["m", "half", "0", "-1", "inf", "nan", "code"])
def test_phi_that_is_none(phi):
    with pytest.raises(ValueError, match="phi is m3, limit, fd"):
        constant_phi(phi)


@pytest.mark.parametrize(
    ("nfe", "order", "expected"),
    [(5, 3, [3, 2]), (6, 3, [3, 2, 1]), (10, 3, [3, 3, 3, 1]), (12, 3, [3, 3, 3, 2, 1]), (7, 2, [2, 2, 2, 1])],
)
def test_agile_split(nfe, order, expected):
    plan = get("scire").plan(VPLinear(), nfe, order=order)
    assert plan.arguments["orders"] == expected
    assert [len(r) + 1 for r in plan.arguments["interiors"]] == expected


def test_multistep_orders():
    orders = {
        (nfe, rule): get("scire").plan(VPLinear(), nfe, order=3, mode="multistep", rule=rule).arguments["orders"]
        for nfe in (6, 10) for rule in ("root", "sd")
    }  # fmt: skip
    assert orders[6, "root"] == orders[6, "sd"] == [1, 2, 3, 3, 2, 1]
    assert orders[10, "root"] == [1, 2, *[3] * 6, 2, 1]
    assert orders[10, "sd"] == [1, 2, *[3] * 8]  # that copy lowers the order below 10 steps only


def order_of(solver, path, budgets, **options):
    denoiser = ring_mixture(path)
    reference = get("rk4").plan(path, 6000, "quadratic")(denoiser, POINTS)
    plans = [get(solver).plan(path, nfe, "nsr", **options) for nfe in budgets]
    errors = [(plan(denoiser, POINTS) - reference).norm().item() for plan in plans]
    return -np.polyfit(np.log(budgets), np.log(errors), 1)[0]


@pytest.mark.parametrize("path", [VPLinear(), LinearFlow()], ids=["vp", "flow"])
@pytest.mark.parametrize("solver", ["scire", "scire-v2"])
def test_consistent_stage_is_third_order(solver, path):
    options = {"order": 3, "phi": "fd", "stage": "consistent", "mode": "singlestep_fixed"}
    assert get(solver).claimed_order(**options) == 3
    assert order_of(solver, path, (192, 384, 768), **options) > 2.85


@pytest.mark.parametrize(("phi", "low", "high"), [("fd", 1.85, 2.15), ("m3", 0.85, 1.15), ("limit", 0.85, 1.15)])
@pytest.mark.parametrize(("solver", "options"), [("scire", {}), ("scire", {"mode": "multistep"}), ("scirei", {})])
def test_recursive_difference_costs_an_order(solver, options, phi, low, high):
    assert low < order_of(solver, VPLinear(), (192, 384, 768), phi=phi, **options) < high


@pytest.mark.parametrize(
    "options",
    [{"mode": "single"}, {"ratios": "linear"}, {"stage": "x"}, {"rule": "x"}, {"prediction": "eps"}, {"order": 4}],
)
def test_unknown_values(options):
    with pytest.raises(ValueError, match="solver scire: "):
        get("scire").plan(VPLinear(), 10, **options)


@pytest.mark.parametrize("mode", ["singlestep_agile", "singlestep_fixed", "multistep"])
def test_budget_below_the_order(mode):
    with pytest.raises(ValueError, match="needs at least 3 evaluations"):
        get("scire").plan(VPLinear(), 2, order=3, mode=mode)
