"""DDIM, DDPM and the integer grids."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import DiscreteVP, LinearFlow, VPLinear
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import get

POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _noise(i: int) -> torch.Tensor:
    return torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i + 1))


def _run(name: str, path, grid: str = "uniform", **options) -> torch.Tensor:
    return get(name).plan(path, 7, grid, **options)(ring_mixture(path), POINTS, _noise)


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpm-solver-2m", "dpmpp-2s", "dpm-solver-3"])
def test_every_first_order_step_is_ddim(name):
    torch.testing.assert_close(_run(name, VPLinear(), order=1), _run("ddim", VPLinear()), atol=1e-12, rtol=0)


def test_ddim_is_euler_on_a_flow():
    torch.testing.assert_close(_run("ddim", LinearFlow()), _run("euler", LinearFlow()), atol=1e-12, rtol=0)


def test_ddpm_between_ddim_and_the_sde():
    torch.testing.assert_close(_run("ddpm", VPLinear(), eta=0.0), _run("ddim", VPLinear()), atol=1e-12, rtol=0)
    torch.testing.assert_close(_run("ddpm", VPLinear()), _run("dpmpp-sde-2m", VPLinear(), order=1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["integer-uniform", "integer-quad"])
@pytest.mark.parametrize("n", [2, 5, 6, 12, 50, 300])
def test_integer_grids_keep_the_budget(name, n):
    times = Grid.parse(name)(DiscreteVP.ddpm(), n, 1.0, 0.0)
    assert len(times) == n + 1
    assert times[-1] == 0
    assert all(a > b for a, b in pairwise(times))


def test_official_uniform_may_exceed_the_budget_and_says_so():
    with pytest.warns(UserWarning, match="7 intervals instead of 6"):
        plan = get("ddim").plan(DiscreteVP.ddpm(), 6, "integer-uniform-official")
    assert len(plan.times) == 8


def test_integer_grids_need_a_vp_path():
    with pytest.raises(ValueError, match="VP paths"):
        get("ddim").plan(LinearFlow(), 6, "integer-uniform")
    with pytest.raises(ValueError, match="at least 2"):
        get("ddim").plan(DiscreteVP.ddpm(), 1, "integer-quad")
