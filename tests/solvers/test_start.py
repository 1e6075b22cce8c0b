"""The start of runs that cannot begin at the noise, on an exact problem whose data have a mean."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsample.models.catalogue import open_model
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import normal, step_noise
from fastsample.models.path import DiscreteVP, LinearFlow, VPLinear
from fastsample.solvers import solver as registry
from fastsample.solvers.exports.diffusers import TableScheduler
from fastsample.solvers.grids import GRIDS, Grid
from fastsample.solvers.k_diffusion import register_k_diffusion
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.plan import Plan
from fastsample.solvers.solver import Facts, get, register, solvers, steps
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import play, trace
from fastsample.solvers.table_file import TableFile

LATE = [name for name, one in solvers().items() if get(name).plan(LinearFlow(), 12).entry[1] and not one.adaptive]


class Asked(Denoiser):
    """Keeps the points at which it is asked."""

    def __init__(self, base):
        super().__init__(base.path)
        self.base, self.points = base, []

    def _combine(self, x, t, p, r):
        self.points.append((t, x))
        return self.base.combine(x, t, p, r)


def shifted():
    return open_model("gmm2d-flow-mean").make(None, None, 0.0, None)


def start(n=64):
    return normal(3, range(n), (2,)).double()


def noise(step):
    return step_noise(3, range(64), (2,), step).double()


@pytest.fixture(scope="module")
def truth():
    return get("rk4").plan(LinearFlow(), 400, "uniform")(shifted(), start())


def psnr(x, y):
    return -10 * math.log10(float((x - y).square().mean()) / 4)


def test_there_are_solvers_that_start_late():
    assert {"unipc", "dpmpp-3m", "dpm-solver-3", "deis", "edm-heun", "edm-sde", "ipndm-v", "scire"} <= set(LATE)
    assert not {"euler", "rk4", "flow-solver", "dopri5"} & set(LATE)


@pytest.mark.parametrize(
    ("name", "reached"), [("unipc", 130), ("deis", 125), ("dpmpp-3m", 115), ("dpm-solver-3", 105), ("ipndm-v", 120)]
)
def test_a_mean_of_the_data_is_no_ceiling(truth, name, reached):
    plan, denoiser = get(name).plan(LinearFlow(), 400), shifted()
    assert psnr(plan(denoiser, start()), truth) > reached
    assert denoiser.nfe == 400
    assert psnr(replace(plan, noise_start=True)(shifted(), start()), truth) < 61


@pytest.mark.parametrize("official", [False, True])
def test_nor_is_it_for_samples_with_steps_of_their_own(truth, official):
    plan = get("dpm-adaptive").plan(LinearFlow(), 1, rtol=1e-5, atol=1e-6, official=official)
    assert psnr(plan(shifted(), start()), truth) > 75
    assert psnr(replace(plan, noise_start=True)(shifted(), start()), truth) < 61


@pytest.mark.parametrize("grid", ["logsnr", "nsr", "karras", "sigmoid", "vp-time:rho=2"])
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "edm-heun"])
def test_grids_that_begin_late_have_none_either(truth, name, grid):
    # Where the grid ends before t_data the result is compared there.
    plan = get(name).plan(LinearFlow(), 600, grid)
    denoiser, late = shifted(), plan.entry[1]
    assert late
    exact = get("rk4").plan(LinearFlow().between(0.0, plan.end), 400, "uniform")(shifted(), start())
    error, plain = (psnr(one(denoiser, start()), exact) for one in (plan, replace(plan, noise_start=True)))
    assert error > plain + 1
    if name != "ddim":
        assert error > 75


@pytest.mark.parametrize("afs", [False, True], ids=["plain", "afs"])
@pytest.mark.parametrize("name", LATE)
def test_the_first_question_is_at_the_start_and_costs_nothing(name, afs):
    solver = get(name)
    plan = solver.plan(LinearFlow(), 13, afs=afs)
    asked, plain = Asked(shifted()), Asked(shifted())
    result, other = plan(asked, start(), noise), replace(plan, noise_start=True)(plain, start(), noise)
    assert len(asked.points) == len(plain.points) <= 13
    assert [t for t, _ in asked.points] == [t for t, _ in plain.points]
    if afs:
        return
    t, x = asked.points[0]
    if not solver.stochastic and name != "stork-noise":  # which starts one step late, as published
        assert t == pytest.approx(LinearFlow().t_finite, rel=1e-9)
        assert x == pytest.approx((1 - t) * start(), abs=1e-12)
    assert 1e-5 < float((result - other).abs().max()) < 1


def test_churn_at_the_start_keeps_its_noise_and_the_mean():
    plan = get("edm-sde").plan(LinearFlow(), 12, S_churn=4.0, S_max=1e9, S_min=0.0)
    asked, plain = Asked(shifted()), Asked(shifted())
    plan(asked, start(), noise)
    replace(plan, noise_start=True)(plain, start(), noise)
    first = asked.points[0][0]
    assert first < 0.8 * LinearFlow().t_finite  # noise was added
    moved = [(a[1] - b[1]).mean(0) for a, b in zip(asked.points, plain.points, strict=True)]
    assert float(moved[0].abs().max()) == 0
    assert moved[1] == pytest.approx(first * torch.tensor([2.0, -1.0]).double(), rel=0.1)


@pytest.mark.parametrize("path", [LinearFlow(), VPLinear()], ids=["flow", "vp"])
@pytest.mark.parametrize("grid", [None, "vp-time:rho=2"])
@pytest.mark.parametrize("name", [name for name in LATE if not get(name).nonlinear])
def test_its_table_is_the_solver(name, grid, path):
    denoiser = shifted() if path == LinearFlow() else open_model("gmm2d").make(None, None, 0.0, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = get(name).plan(path, 16, None if name == "stork-noise" else grid)  # whose times are its own
    table, asked = trace(plan, coordinate_of(path)), Asked(denoiser)
    result = plan(asked, start(), noise)
    size = max(float(x.abs().max()) for _, x in asked.points) * max(1, float(abs(table.b).sum(1).max()))
    assert float((play(table, denoiser, start(), noise) - result).abs().max()) < 1e-12 * size


def test_a_solver_that_asks_elsewhere_first_starts_from_the_noise(monkeypatch):
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))

    @register("late", Facts(title="", paper="", coordinate="x0", order=1, scheduler=steps(2)))
    def late(denoiser, x, times):
        for s, t in zip(times, times[1:], strict=False):
            x = x + (t - s) * (denoiser.velocity(x, (s + t) / 2) + 0 * denoiser.velocity(x, t))
        return x

    plan, denoiser = get("late").plan(LinearFlow(), 8), shifted()
    assert plan.entry[1]
    torch.testing.assert_close(plan(denoiser, start()), replace(plan, noise_start=True)(shifted(), start()))
    assert denoiser.nfe == 8


def test_functions_of_k_diffusion_start_there(monkeypatch, truth):
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))

    def sample(model, x, sigmas, extra_args=None, disable=None):
        older = None
        for i in range(len(sigmas) - 1):
            slope = (x - model(x, sigmas[i] * x.new_ones([len(x)]))) / sigmas[i]
            mean = slope if older is None else slope + 0.5 * (sigmas[i + 1] - sigmas[i]) / older[1] * (slope - older[0])
            older = slope, sigmas[i + 1] - sigmas[i]
            x = x + (sigmas[i + 1] - sigmas[i]) * mean
        return x

    register_k_diffusion("two-step", sample, title="", paper="", order=2)
    plan, denoiser = get("two-step").plan(LinearFlow(), 120), shifted()
    result = plan(denoiser, start())
    assert denoiser.nfe == 120
    assert psnr(result, truth) > 64
    assert psnr(replace(plan, noise_start=True)(shifted(), start()), truth) < 61
    table = trace(plan, "velocity")
    assert float((play(table, shifted(), start()) - result).abs().max()) < 1e-11


def test_an_exported_scheduler_starts_there(truth):
    plan = get("unipc").plan(LinearFlow(), 40)
    table = trace(plan, "velocity")
    scheduler = TableScheduler(TableFile.of(table, LinearFlow(), solver="unipc", title="", paper=""))
    scheduler.set_timesteps(40)
    denoiser, x = shifted(), scheduler.init_noise_sigma * start()
    for t, own in zip(scheduler.timesteps, table.times, strict=True):
        x = scheduler.step(-denoiser.velocity(x.double(), float(own)), t, x).prev_sample
    assert float((x - plan(shifted(), start())).abs().max()) < 1e-5  # its state is float32


@pytest.mark.parametrize("name", [name for name in GRIDS if name.startswith("integer-")])
def test_integer_grids_start_from_the_noise_itself(name):
    plan = get("ddim").plan(DiscreteVP.ddpm(), 10, name)
    asked = Asked(open_model("gmm2d").make(None, None, 0.0, None).on(DiscreteVP.ddpm()))
    plan(asked, start())
    assert torch.equal(asked.points[0][1], start())
    assert asked.points[0][0] < 0.95  # which is not where the path begins
    assert trace(plan).a[0] == 1
    assert (plan.end, trace(plan).end) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "path", "grid", "end"),
    [
        ("ddim", LinearFlow(), None, 0.999), ("ddim:denoise=true", LinearFlow(), None, 1.0),
        ("edm-heun", LinearFlow(), None, 0.999), ("edm-heun:denoise=true", VPLinear(), None, 0.0),
        ("euler-rf", LinearFlow(), None, 1.0), ("edm-heun", LinearFlow(), "vp-time", 0.999),
        ("pndm", DiscreteVP.ddpm(), "integer-uniform", 0.0),
        ("pndm:official=true", DiscreteVP.ddpm(), "integer-uniform", 1e-3),
    ],
)  # fmt: skip
def test_a_plan_knows_where_its_result_is(text, path, grid, end):
    plan: Plan = Spec.parse(text).on(Grid.parse(grid) if grid else None).plan(path, 20)
    assert plan.end == pytest.approx(end, abs=1e-9)
    assert trace(plan).end == plan.end
    if end in (0.999, 1e-3):
        assert plan.end == path.t_data or np.isclose(end, plan.end)
