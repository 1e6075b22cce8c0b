"""What the training-free solvers are, where they coincide with others, and what they spend."""

from itertools import pairwise

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.models.recorder import Recorder
from fastsample.solvers.exponential import adams, multistep
from fastsample.solvers.families.stork import _moments
from fastsample.solvers.solver import get

POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PATHS = {"edm": Edm(), "vp": VPLinear(), "flow": LinearFlow()}


def samples(path, solver, nfe=10, grid="logsnr", **options):
    plan = get(solver).plan(path, nfe, grid, **options)
    return plan(ring_mixture(path), POINTS, lambda step: torch.zeros_like(POINTS))


SAME = [
    ("cab", {"theta": 0.0}, "ipndm-v", {"order": 2}),
    ("cab", {"theta": 0.0, "order": 3}, "ipndm-v", {"order": 3}),
    ("res-2m", {}, "dpmpp-2m", {"solver_type": "taylor", "lower_order_final": "never"}),
    ("res-2s", {}, "dpmpp-2s", {"solver_type": "taylor"}),
    *(("lms", {"order": order}, "ipndm-v", {"order": order}) for order in (1, 2, 3, 4)),
    ("dpm-fast", {}, "dpm-solver-3", {}),
    ("dpmpp-2m-sde", {"eta": 0.0}, "dpmpp-2m", {"lower_order_final": "never"}),
    (
        "dpmpp-3m-sde",
        {"eta": 0.0, "official": True},
        "dpmpp-3m",
        {"official": True, "solver_type": "taylor", "lower_order_final": "never"},
    ),
    ("dpmpp-3m-sde", {"eta": 0.0}, "dpmpp-3m", {"solver_type": "taylor", "lower_order_final": "never"}),
    ("euler-ancestral", {"eta": 0.0}, "edm-euler", {}),
    ("dpm2-ancestral", {"eta": 0.0}, "edm-dpm2", {}),
    ("dpmpp-2s-ancestral", {"eta": 0.0}, "dpmpp-2s", {}),
]


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("one", "options", "other", "settings"), SAME)
def test_two_names_of_one_method_agree(path, one, options, other, settings):
    difference = samples(path, one, **options) - samples(path, other, **settings)
    assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("path", [PATHS["edm"], PATHS["vp"]], ids=["edm", "vp"])
def test_sa_solver_of_the_ode_without_a_corrector_is_the_exponential_adams_method(path, order):
    options = {"predictor_order": order, "corrector_order": 0, "tau": 0.0, "mode": "more_steps"}
    plan = get("sa-solver").plan(path, 10, "logsnr", **options)
    n = len(plan.times) - 1
    orders = [min(order, i, n + 1 - i) for i in range(1, n + 1)]
    expected = multistep(ring_mixture(path), POINTS, plan.times, orders, "data", adams)
    found = multistep(ring_mixture(path), POINTS, plan.times, [1] * n, "data", adams)
    assert (plan(ring_mixture(path), POINTS) - expected).abs().max() < 1e-10
    assert (found - expected).abs().max() > 1e-4 or order == 1


@pytest.mark.parametrize("s", [2, 9, 50])
def test_stork_4_integrates_a_quadratic_in_time_exactly(s):
    assert _moments(4, s, False) == pytest.approx((1, 1 / 2, 1 / 3), abs=1e-13)
    assert _moments(4, s, True) != pytest.approx((1, 1 / 2, 1 / 3), abs=1e-3)


@pytest.mark.parametrize("variant", ["1_1", "2_1", "2_2", "3_1", "3_2", "3_3"])
def test_pfdiff_makes_a_call_a_round_and_one_for_the_first_step(variant):
    span = int(variant[0]) + 1
    for nfe in (1, 2, 7):
        plan = get("pfdiff").plan(PATHS["vp"], nfe, variant=variant)
        calls = Recorder(ring_mixture(PATHS["vp"]))
        plan(calls, POINTS)
        assert (len(plan.times) - 1, calls.nfe) == (1 + (nfe - 1) * span, nfe)


def test_restart_climbs_to_t_max_as_often_as_asked():
    calls = Recorder(ring_mixture(PATHS["edm"]))
    get("restart").plan(PATHS["edm"], 18, "karras", restarts="3/2/0.06/0.3")(calls, POINTS, lambda _: POINTS)
    times = [t for t, _ in calls.points]
    assert calls.nfe == 18
    assert [t for s, t in pairwise(times) if t > s] == pytest.approx([0.3, 0.3])
