"""DPM-Solver-v3: its statistics against quadrature, what it is with trivial ones, and the shelf of statistics."""

import gzip
import json
from itertools import product

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.found.ems import estimate
from fastsample.solvers.found.shelf import add_statistics, found_statistics
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.proofs.golden import SHIPPED
from fastsample.solvers.solver import get
from fastsample.solvers.spec import Spec, table_of
from fastsample.solvers.table import trace

PATHS = {"vp": VPLinear(), "flow": LinearFlow(), "edm": Edm(), "ddpm": DiscreteVP.ddpm()}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("statistics", "family"), [("data", "dpmpp"), ("noise", "dpm-solver")])
def test_with_trivial_statistics_it_is_dpm_solver(path, statistics, family):
    denoiser = ring_mixture(path)
    x = path.prior_std * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for order, grid in product((1, 2, 3), ("logsnr", "sigmoid")):
        other = get(f"{family}-{max(order, 2)}m")
        theirs = other.plan(path, 6, grid, order=order, solver_type="taylor", lower_order_final="always")
        ours = get("dpm-solver-v3").plan(path, 6, grid, statistics=statistics, order=order)
        assert (ours(denoiser, x) - theirs(denoiser, x)).abs().max() < 1e-12


ESTIMATES = json.loads(gzip.decompress((SHIPPED / "ems_estimation.json.gz").read_bytes()))["estimates"]


@pytest.mark.parametrize("case", ESTIMATES, ids=lambda case: case["problem"])
def test_statistics_of_a_mixture_are_those_of_quadrature(case):
    """States by Gauss-Hermite nodes for each component, and signs of both products: the mean of vv^T is 1."""
    path = {"gmm2d_vp": VPLinear(), "gmm2d_edm": Edm()}[case["problem"]]
    denoiser, every = ring_mixture(path), case["rows_every"]
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    grid = torch.from_numpy(np.array(list(product(nodes, nodes))))
    share = torch.from_numpy(np.outer(weights, weights).ravel() / (2 * np.pi))
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    points, means = len(grid), denoiser.means

    def states(t):
        spread = np.sqrt(0.15**2 * path.alpha(t) ** 2 + path.sigma(t) ** 2)
        x = (path.alpha(t) * means[:, None] + spread * grid).reshape(-1, 2)
        return torch.cat([x, x])

    whole = np.linspace(case["lam"][0], case["lam"][-1], case["N"] + 1)
    lam = whole[8 * every - 3 : 9 * every + 4]  # two rows of the data, and what the slope of l needs beside them
    found = estimate(
        lambda _: denoiser, path, lam, states, signs.repeat_interleave(8 * points, 0), (share / 16).repeat(16),
        clip=np.inf, batch=16 * points,
    )  # fmt: skip
    for row in (8, 9):
        place = 3 + (row - 8) * every
        assert found.l[place] == pytest.approx(case["l"][row], abs=1e-6)
        assert found.s[place] == pytest.approx(case["s"][row], abs=3 * case["quadrature_change_s"][row] + 1e-5)
    assert np.abs(found.b).max() < 1e-6


def some_statistics(model, intervals=40):
    """Smooth ones, different for each coordinate."""
    path = model.path
    lam = np.linspace(path.lam(path.t_finite), path.lam(path.t_data), intervals + 1)
    u, d = (lam[:, None] - lam[0]) / (lam[-1] - lam[0]), np.arange(int(np.prod(model.shape)))[None]
    values = (1 - u + 0.02 * d * u, u - 0.5 + 0 * d, 0.05 * u * (d + 1))
    return Statistics(lam, *(value.reshape(-1, *model.shape) for value in values))


def test_statistics_are_of_their_model_only(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    model, spec = open_model("gmm2d"), Spec.parse("dpm-solver-v3")
    with pytest.raises(ValueError, match=r"not found yet: `fastsample find ems --model gmm2d` finds them"):
        spec.plan_for(model, 5)
    assert Spec.parse("dpm-solver-v3:statistics=data").plan_for(model, 5)[0].statistics == ""
    file = add_statistics(some_statistics(model), model, 0.0, {"told": "by hand"})
    plan, _ = spec.plan_for(model, 5)
    assert (plan.trained_on, plan.found_with, len(plan.statistics)) == ("statistics", "statistics of by hand", 64)
    with pytest.raises(ValueError, match=r"not found yet"):
        spec.plan_for(open_model("gmm2d-flow"), 5)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"holds no statistics .*: find them again"):
        found_statistics(model)


def test_with_coefficients_for_each_coordinate_it_has_no_table(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    model = open_model("gmm2d")
    add_statistics(some_statistics(model), model, 0.0, {"told": "by hand"})
    with pytest.raises(ValueError, match=r"no coefficient table; with statistics=scalar it has one"):
        table_of("dpm-solver-v3", model, 5)
    assert table_of("dpm-solver-v3:statistics=scalar", model, 5).nfe == 5
    plan, _ = Spec.parse("dpm-solver-v3").plan_for(model, 5)
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([plan(model.make(None, None, 0.0, None), x[i : i + 1]) for i in range(4)])
    assert (plan(model.make(None, None, 0.0, None), x) - alone).abs().max() < 1e-13


def test_it_converges_with_statistics_as_without(tmp_path, monkeypatch):
    """Any statistics give the same solution in the limit: they only share it out otherwise."""
    model = open_model("gmm2d-flow")
    found = some_statistics(model)
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    truth = get("rk4").plan(model.path, 8000)(model.make(None, None, 0.0, None), x)
    errors = []
    for nfe in (100, 200, 400):
        plan = get("dpm-solver-v3").plan(model.path, nfe, "sigmoid", found=found, order=2, lower_order_final=False)
        errors.append(float((plan(model.make(None, None, 0.0, None), x) - truth).square().mean().sqrt()))
    assert np.log2(errors[0] / errors[1]) > 1.7
    assert np.log2(errors[1] / errors[2]) > 1.7


def test_statistics_that_do_not_reach_are_refused():
    model = open_model("gmm2d")
    with pytest.raises(ValueError, match=r"its statistics reach from lambda -5.025 to 4.558, and this run from -5.025"):
        get("dpm-solver-v3").plan(model.path.between(1.0, 1e-4), 5, found=some_statistics(model))


def test_a_scalar_table_of_statistics_is_the_solver():
    model = open_model("gmm2d-flow")
    found = some_statistics(model).averaged("scalar")
    plan = get("dpm-solver-v3").plan(model.path, 6, found=found)
    assert plan.tabled
    assert trace(plan).nfe == 6
