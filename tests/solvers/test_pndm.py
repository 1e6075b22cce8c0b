"""PNDM on integer grids and elsewhere."""

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import DiscreteVP, VPLinear
from fastsample.solvers.solver import get

TABLE = DiscreteVP.ddpm().between(1.0, 0.0)
POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "extra"), [("pndm", 9), ("s-pndm", 1)])
def test_evaluations(name, extra):
    denoiser = ring_mixture(TABLE)
    plan = get(name).plan(TABLE, 10 + extra, "integer-uniform")
    plan(denoiser, POINTS)
    assert (len(plan.times) - 1, denoiser.nfe) == (10, 10 + extra)


@pytest.mark.parametrize("name", ["pndm", "s-pndm"])
def test_official_reads_the_table_one_entry_late(name):
    plans = [get(name).plan(TABLE, 34, "integer-uniform", official=flag) for flag in (False, True)]
    default, official = (plan(ring_mixture(TABLE), POINTS) for plan in plans)
    assert 1e-4 < (default - official).abs().max() < 0.2


@pytest.mark.parametrize("name", ["pndm", "s-pndm"])
def test_official_needs_a_table(name):
    with pytest.raises(ValueError, match="it needs a discrete-time model"):
        get(name).plan(VPLinear(), 20, official=True)


def test_small_budgets_are_runge_kutta_alone():
    denoiser = ring_mixture(VPLinear())
    for budget, made in ((4, 4), (7, 4), (11, 8), (12, 12)):
        denoiser.nfe = 0
        get("pndm").plan(VPLinear(), budget)(denoiser, POINTS)
        assert denoiser.nfe == made
    with pytest.raises(ValueError, match="needs at least 4 evaluations"):
        get("pndm").plan(VPLinear(), 3)
