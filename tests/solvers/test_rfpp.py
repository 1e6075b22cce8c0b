"""The sampler of rfpp is the official formula, exact where Euler is exact, and not a solver of the ODE elsewhere."""

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.denoiser import Denoiser
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.proofs.claims import claims, prove
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace

SPEED = torch.tensor([3.0, -2.0], dtype=torch.float64)
NOISE = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Translation(Denoiser):
    """A flow whose paths are parallel lines run through at one speed."""

    def _combine(self, x, t, p, r):
        return p * (x + (1 - t) * SPEED) + r * (x - t * SPEED)


def official(velocity, z1, shares, heun):
    """sample_ode_generative of sangyun884/rfpp with sampler "new"; velocity(z, share) is noise minus data."""
    z = z1
    for step, (t, t_next) in enumerate(zip(shares, shares[1:], strict=False)):
        v = velocity(z, t)
        if heun and step < len(shares) - 2:
            data = z - t * v
            v = (v + velocity((1 - t_next) * data + t_next * z1, t_next)) / 2
        data = z - t * v
        z = (1 - t_next) * data + t_next * z1
    return z


@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("nfe", [1, 5, 9])
def test_it_is_the_official_formula(nfe, heun):
    denoiser = ring_mixture(LinearFlow(t_data=1.0))
    plan = get("rfpp").plan(denoiser.path, nfe, heun=heun)
    ours = plan(denoiser, NOISE)

    def velocity(z, share):
        return -denoiser.velocity(z, 1 - share)

    shares = [1 - t for t in plan.times]
    torch.testing.assert_close(ours, official(velocity, NOISE, shares, heun), rtol=0, atol=1e-12)
    # The official start, 1e-5 later.
    late = official(velocity, (1 - 1e-5) * NOISE, [1 - 1e-5, *shares[1:]], heun)
    assert 0 < (ours - late).abs().max() < 1e-3


@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("nfe", [1, 2, 3, 8, 15])
def test_straight_paths_are_followed_exactly(nfe, heun):
    denoiser = Translation(LinearFlow())
    ours = get("rfpp").plan(denoiser.path, nfe, heun=heun)(denoiser, NOISE)
    torch.testing.assert_close(ours, get("euler").plan(denoiser.path, nfe)(denoiser, NOISE), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, NOISE + 0.999 * SPEED, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heun", [False, True])
def test_one_step_is_eulers(heun):
    denoiser = ring_mixture(LinearFlow())
    ours = get("rfpp").plan(denoiser.path, 1, heun=heun)(denoiser, NOISE)
    torch.testing.assert_close(ours, get("euler").plan(denoiser.path, 1)(denoiser, NOISE), rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", [LinearFlow(), VPLinear()], ids=["flow", "vp"])
@pytest.mark.parametrize(
    ("nfe", "heun", "made", "steps"), [(6, False, 6, 6), (7, True, 7, 4), (8, True, 7, 4), (1, True, 1, 1)]
)
def test_evaluations(path, nfe, heun, made, steps):
    denoiser = ring_mixture(path)
    plan = get("rfpp").plan(path, nfe, heun=heun)
    plan(denoiser, NOISE)
    assert (denoiser.nfe, trace(plan).nfe, len(plan.times) - 1) == (made, made, steps)


@pytest.mark.parametrize("heun", [False, True])
def test_steps_do_not_bring_it_to_the_solution_of_a_curved_field(heun):
    denoiser = ring_mixture(LinearFlow())
    truth = get("rk4").plan(denoiser.path, 4000)(denoiser, NOISE)
    plans = (get("rfpp").plan(denoiser.path, nfe, heun=heun) for nfe in (101, 801))
    coarse, fine = ((plan(denoiser, NOISE) - truth).square().mean().sqrt() for plan in plans)
    assert fine > coarse > 0.1


def test_verify_holds_it_to_its_table_and_budget_but_to_no_order():
    for claim in claims():
        if claim.solver.name == "rfpp":
            proof = prove(claim)
            assert (claim.order, proof.holds) == (0, True)
            assert all(order < 0.5 for order in proof.orders.values())
    assert "Heuristic" in get("rfpp").note
