"""The trajectories that solvers walk, and how far they bend."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsample.bench.metrics.trajectories import bending, curvature, outer_states, undefined
from fastsample.models.analytic import GaussianMixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.models.recorder import Recorder
from fastsample.results.statistics import mean_of, ratio_of_means, root_of_mean
from fastsample.solvers.learned.shelf import learned_tables, table_plan
from fastsample.solvers.solver import get, solvers
from fastsample.solvers.spec import Spec

WHOLE = LinearFlow().between(0.0, 1.0)


def eight_gaussians(path):
    """Standard deviation 0.2 on a circle of radius 4: the `gauss8` of the small-run protocol."""
    angles = torch.arange(8, dtype=torch.float64) * (torch.pi / 4)
    means = 4 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(path, means, torch.full((8,), 0.2**2, dtype=torch.float64))


def walk(plan, model, start):
    recorder = Recorder(model)
    result = plan(recorder, start)
    return (*outer_states(plan, start, recorder, result), result)


def normal(count, seed=0):
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def long_walk():
    """20,000 samples of the eight Gaussians by Euler with 100 steps, from noise of seed 0."""
    model = eight_gaussians(WHOLE)
    times, z, _ = walk(get("euler").plan(WHOLE, 100), model, normal(20000))
    return bending(times, z)


def test_budget_identity_of_an_exact_mixture(long_walk):
    # E|z - x|^2 = I + V + E|z_1 - z_0|^2 per dimension, for the velocity that minimises the regression loss I.
    model, generator = eight_gaussians(WHOLE), torch.Generator().manual_seed(1)
    data, noise = model.sample(20000, generator), normal(20000, 2)
    loss = []
    for i, (x, z) in enumerate(zip(data.chunk(100), noise.chunk(100), strict=True)):
        t = (i + 0.5) / 100
        velocity = model.velocity(t * x + (1 - t) * z, t)
        loss.append(float((x - z - velocity).square().mean()))
    coupling = float((noise - data).square().mean())
    budget = np.mean(loss) + long_walk["curvature"].mean() + long_walk["transport"].mean()
    assert budget == pytest.approx(coupling, rel=0.01)
    assert np.mean(loss) == pytest.approx(3.5753697, rel=0.01)  # these and those below: specs of the small-run protocol
    assert coupling == pytest.approx(9.0373403, rel=0.01)


def test_curvature_of_the_small_run_protocol(long_walk):
    assert long_walk["curvature"].mean() == pytest.approx(1.5461365, rel=0.01)
    assert ratio_of_means(long_walk["curvature"], long_walk["transport"]).value == pytest.approx(0.3918458, rel=0.01)
    assert long_walk["transport"].mean() == pytest.approx(3.9756285, rel=0.012)  # theirs is of 400 steps
    times, z, _ = walk(get("euler").plan(WHOLE, 20), eight_gaussians(WHOLE), normal(20000))
    assert bending(times, z)["curvature"].mean() == pytest.approx(1.7970772, rel=0.01)


@pytest.mark.parametrize("path", [WHOLE, LinearFlow()], ids=["to 1", "to 0.999"])
def test_euler_with_uniform_steps_has_the_official_curvature(path):
    model, n = eight_gaussians(path), 100
    times, z, _ = walk(get("euler").plan(path, n), model, normal(16))
    trajectory = [normal(16)]  # fast-ode's list T of n + 1 states, by a solver of its own
    for i in range(n):
        t = i / n * path.t_data
        trajectory.append(trajectory[-1] + path.t_data / n * model.velocity(trajectory[-1], t))
    base = trajectory[0] - trajectory[n]
    official = sum(float(((trajectory[i - 1] - trajectory[i]) * n - base).square().mean()) for i in range(1, n + 1)) / n
    # It counts its last state as the one at 1; at its own time the slopes are 1 / t_data of these.
    assert bending(times, z)["curvature"].mean() * path.t_data**2 == pytest.approx(official, rel=1e-12)
    assert bending(times, z)["transport"].mean() * path.t_data**2 == pytest.approx(float(base.square().mean()))


@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "dpmpp-2m"])
def test_a_flow_to_a_point_is_straight(name):
    model = GaussianMixture(LinearFlow(), torch.tensor([[1.0, -2.0]]), torch.zeros(1))
    times, z, _ = walk(get(name).plan(LinearFlow(), 12, "uniform"), model, normal(8))
    found = bending(times, z)
    assert found["curvature"].max() < 1e-20
    assert found["transport"].min() > 0.1


def test_one_step_is_straight():
    times, z, _ = walk(get("euler").plan(LinearFlow(), 1), eight_gaussians(LinearFlow()), normal(8))
    assert curvature(times, z).max() < 1e-20


@pytest.mark.parametrize("path", [LinearFlow(), VPLinear()], ids=["flow", "vp"])
@pytest.mark.parametrize("name", ["euler", "heun", "midpoint", "rk4", "rk4-38", "edm-dpm2", "dpmpp-2m"])
def test_states_are_those_between_the_steps(path, name):
    model = eight_gaussians(path)
    plan = get(name).plan(path, 12)
    times, z, _ = walk(plan, model, normal(4))
    for i in range(1, len(times) - 1):  # the result of the first i steps
        shorter = replace(plan, times=plan.times[: i + 1])
        t = path.t_of_lam(plan.own.lam(plan.times[i]))
        total = path.alpha(t) + path.sigma(t)
        assert times[i] == pytest.approx(path.alpha(t) / total, abs=1e-12)
        torch.testing.assert_close(z[i], shorter(model, normal(4)) / total, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["dpmpp-2m", "edm-heun", "pndm", "ddim:denoise=true"])
def test_a_late_start_is_the_completed_state(name):
    # All data at m: the exact trajectory is z = tau m + (1 - tau) eps.
    m, start = torch.tensor([[3.0, -2.0]], dtype=torch.float64), normal(4)
    model = GaussianMixture(LinearFlow(), m, torch.full((1,), 1e-12, dtype=torch.float64))
    plan = Spec.parse(f"{name}@logsnr").plan(LinearFlow(), 24)
    times, z, _ = walk(plan, model, start)
    assert times[0] == pytest.approx(1e-3)
    exact = torch.from_numpy(times)[:, None, None] * m + torch.from_numpy(1 - times)[:, None, None] * start
    torch.testing.assert_close(z, exact, rtol=0, atol=1e-7)


def test_the_last_state_is_at_the_end_of_its_grid():
    m, start = torch.tensor([[3.0, -2.0]], dtype=torch.float64), normal(4)
    model = GaussianMixture(VPLinear(), m, torch.full((1,), 1e-12, dtype=torch.float64))
    times, z, _ = walk(get("ddim").plan(VPLinear(), 10, "integer-uniform"), model, start)
    assert times[-1] == 1
    torch.testing.assert_close(z[-1], m.expand(4, 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("path", [LinearFlow(), VPLinear()], ids=["flow", "vp"])
@pytest.mark.parametrize("options", [{}, {"denoise": True}, {"afs": True}], ids=["plain", "denoise", "afs"])
def test_every_consistent_solver_walks_near_the_exact_trajectory(path, options):
    # For data N(0, s^2) the trajectory from eps is z = sqrt((1 - tau)^2 + s^2 tau^2) eps.
    s, start = 0.5, normal(4)
    model = GaussianMixture(path, torch.zeros(1, 2), torch.full((1,), s * s, dtype=torch.float64))
    for solver in solvers().values():
        plan = solver.plan(path, 24, **options)
        if undefined(plan) or not solver.claimed_order():
            continue
        times, z, result = walk(plan, model, path.prior_std * start)
        assert len(times) == len(plan.times) == len(z), solver.name
        assert (np.diff(times) > 0).all(), solver.name
        exact = torch.from_numpy(np.sqrt((1 - times) ** 2 + (s * times) ** 2))[:, None, None] * start
        worst = float((z - exact).abs().max())
        assert worst < 0.2, (solver.name, worst)
        torch.testing.assert_close(z[0], exact[0], rtol=0, atol=0.02)
        if not options:
            end = path.alpha(path.t_data) + path.sigma(path.t_data)
            torch.testing.assert_close(z[-1] * end, result, rtol=0, atol=1e-14)


def test_trajectories_that_cannot_be_told_have_a_reason():
    path = LinearFlow()
    table = next(file for file in learned_tables() if file.model == "cifar10-tiny-flow")
    reasons = [undefined(get(name).plan(path, 8)) for name in ("dopri5", "ddpm", "euler-rf")]
    reasons.append(undefined(table_plan(table)))
    for reason, words in zip(reasons, ("steps of its own", "noise", "other times", "table"), strict=True):
        assert words in reason
    assert undefined(get("euler").plan(path, 8)) == ""


def test_standard_errors_of_ratios_and_roots_are_those_of_repetitions():
    rng = np.random.default_rng(0)
    above = rng.gamma(2, size=(2000, 300))
    below = above + rng.gamma(3, size=(2000, 300))
    for make in (lambda a, b: ratio_of_means(a, b), lambda a, b: root_of_mean(a), lambda a, b: mean_of(b)):
        found = [make(a, b) for a, b in zip(above, below, strict=True)]
        seen = np.std([one.value for one in found])
        assert np.mean([one.standard_error for one in found]) == pytest.approx(seen, rel=0.06)
    assert root_of_mean(np.array([1.0, 7.0])).value == 2
    assert ratio_of_means(np.array([1.0, 2.0]), np.array([4.0, 8.0])).standard_error == 0
    assert root_of_mean(np.zeros(9)).standard_error == 0
