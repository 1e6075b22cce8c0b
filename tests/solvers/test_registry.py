"""One set of proofs for everything that is registered: a new solver enters by registration alone."""

import math
import warnings

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.grids import Grid
from fastsample.solvers.proofs.claims import claims, converges, errors, problem, slope, start, table_error
from fastsample.solvers.solver import solvers
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace

CLAIMS = list(claims())
PATHS = {"vp": VPLinear(), "flow": LinearFlow(), "edm": Edm(), "ddpm": DiscreteVP.ddpm()}


# Coefficients for each sample take seconds: of the options of such solvers the fast suite takes the defaults.
MEASURED = [
    pytest.param(claim, marks=[pytest.mark.slow] if claim.solver.nonlinear and claim.options else [], id=str(claim))
    for claim in CLAIMS
]


@pytest.mark.parametrize("name", ["gmm2d", "gmm2d-flow"])
@pytest.mark.parametrize("claim", MEASURED)
def test_reaches_the_order_it_claims(claim, name):
    points = errors(claim, name)
    assert len(points) >= 4
    assert converges(claim, slope(points)), points


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if not claim.solver.nonlinear], ids=str)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_table_is_the_solver(claim, path):
    denoiser = ring_mixture(path)
    for budget in (9, 12):
        plan = claim.solver.plan(path, budget, **claim.options)
        assert table_error(plan, denoiser) <= 1e-12
        denoiser.nfe = 0
        plan(denoiser, path.prior_std * start())
        assert denoiser.nfe == trace(plan).nfe == len(plan.asked())


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_keeps_the_budget(claim):
    for path in (VPLinear(), LinearFlow()):
        made_before = 0
        for budget in range(3, 31):
            try:
                plan = claim.solver.plan(path, budget, **claim.options)
            except ValueError:
                assert made_before == 0, "a larger budget is refused after a smaller one was spent"
                continue
            made = len(plan.asked())
            assert made_before <= made <= budget
            made_before = made
        assert made_before >= 24


def step_noise(step):
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name, solver in solvers().items() if not solver.adaptive])
def test_float32_follows_float64(name):
    solver = solvers()[name]
    for problem_name in ("gmm2d", "gmm2d-flow"):
        denoiser = problem(problem_name)
        x = start(64)
        plan = solver.plan(denoiser.path, 20)
        fine = plan(denoiser, x, step_noise)
        coarse = plan(denoiser, x.float(), lambda step: step_noise(step).float())
        mse = float((fine - coarse.double()).square().mean())
        assert 10 * math.log10(16 / max(mse, 1e-20)) >= 60


def test_every_solver_tells_what_a_reader_needs():
    for solver in solvers().values():
        assert solver.title
        assert solver.paper
        assert (solver.solve.__doc__ or "").strip(), solver.name
        assert {} in solver.variants
        for grid in (*solver.grids, solver.flow_grid or solver.grids[0]):
            assert str(Grid.parse(grid)) == grid
        assert Spec.parse(solver.name) == Spec(solver.name)
        for option, default in solver.known_options.items():
            given = Spec.parse(f"{solver.name}:{option}={default}")
            assert (given.options, given.settings) == ({option: default}, solver.known_options)


def test_no_warning_of_our_own_in_a_plain_sweep():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for solver in solvers().values():
            if not solver.adaptive:
                solver.plan(VPLinear(), 12)
