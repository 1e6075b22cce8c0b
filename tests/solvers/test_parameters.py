"""Every registered fixed-grid solver starts BNS, and is itself before training."""

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.learned.parameters import coordinate_of, learned_times, non_stationary, scale_time
from fastsample.solvers.proofs.claims import claims, start
from fastsample.solvers.solver import get
from fastsample.solvers.table import play, trace

PATHS = {"vp": VPLinear(), "flow": LinearFlow()}


@pytest.mark.parametrize("claim", [claim for claim in claims() if not claim.solver.nonlinear], ids=str)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_solver_starts_bns_as_itself(claim, path):
    denoiser = ring_mixture(path)
    for nfe in (6, 8):
        plan = claim.solver.plan(path, nfe, **claim.options)
        family = non_stationary(trace(plan, coordinate_of(path)))
        table = family.table(family.start)
        assert family.free == table.nfe * (table.nfe + 5) // 2 - 1
        exact, single = plan(denoiser, start()), start().float()
        size = max(1.0, float(np.abs(table.b).max()))
        torch.testing.assert_close(play(table, denoiser, start()), exact, rtol=0, atol=1e-10 * size)
        # Rounding of the solver itself: a noise prediction at alpha = 0.001 loses three digits.
        rounding = float((plan(denoiser, single) - exact).abs().max())
        made = play(table, denoiser, single).double()
        torch.testing.assert_close(made, exact, rtol=0, atol=2 * rounding + 1e-5 * size)


def test_other_families_start_as_their_base_method():
    denoiser, path = ring_mixture(LinearFlow()), LinearFlow()
    euler = get("euler").plan(path, 8)
    midpoint = get("midpoint").plan(path, 8)
    for family, plan in (
        (scale_time(euler, 1), euler), (scale_time(midpoint, 2), midpoint), (learned_times(midpoint), midpoint),
    ):  # fmt: skip
        result = play(family.table(family.start), denoiser, start())
        torch.testing.assert_close(result, plan(denoiser, start()), rtol=0, atol=1e-10)


def test_a_stochastic_solver_starts_nothing():
    with pytest.raises(ValueError, match="stochastic solver cannot be distilled"):
        non_stationary(trace(get("ddpm").plan(VPLinear(), 6)))
