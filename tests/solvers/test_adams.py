"""Adams weights, and the solvers that are Adams methods: Flow-Solver, DEIS, iPNDM, iPNDM-v."""

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers.adams import adams_weights
from fastsample.solvers.families.deis import tab_weights
from fastsample.solvers.solver import get

FLOW = LinearFlow()
POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "expected",
    [[1], [3 / 2, -1 / 2], [23 / 12, -4 / 3, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -3 / 8]],
    ids=["AB1", "AB2", "AB3", "AB4"],
)
def test_bashforth_on_equal_steps(expected):
    nodes = [2 - 0.25 * j for j in range(len(expected))]
    assert adams_weights(nodes, 2.0, 2.25) == pytest.approx([0.25 * w for w in expected], abs=1e-15)


@pytest.mark.parametrize(
    "expected",
    [[1 / 2, 1 / 2], [5 / 12, 2 / 3, -1 / 12], [3 / 8, 19 / 24, -5 / 24, 1 / 24],
     [251 / 720, 323 / 360, -11 / 30, 53 / 360, -19 / 720]],
    ids=["AM2", "AM3", "AM4", "AM5"],
)  # fmt: skip
def test_moulton_on_equal_steps(expected):
    nodes = [1.0 - j for j in range(len(expected))]
    assert adams_weights(nodes, 0.0, 1.0) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_weights_integrate_polynomials_on_shrinking_steps(points):
    nodes, s, t = [0.09, 0.9, 6.0, 30.0][:points], 0.09, 0.002
    weights = adams_weights(nodes, s, t)
    for power in range(points):
        exact = (t ** (power + 1) - s ** (power + 1)) / (power + 1)
        assert sum(w * node**power for w, node in zip(weights, nodes, strict=True)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("official", [False, True])
def test_tab_weights_sum_to_the_step(official):
    for s, t in ((40.0, 10.0), (0.1, 0.002)):
        weights = tab_weights([s, 1.7 * s, 2.9 * s], s, t, official)
        assert sum(weights) == pytest.approx(t - s, rel=2e-3 if official else 1e-13)


def test_tab_quadrature_has_converged():
    nodes = [0.085, 0.97, 5.8, 24.0]
    whole = tab_weights(nodes, 0.085, 0.002)
    assert whole == pytest.approx(np.add(tab_weights(nodes, 0.085, 0.03), tab_weights(nodes, 0.03, 0.002)), rel=1e-11)


def run(name, nfe, grid, path=FLOW, **options):
    denoiser = ring_mixture(path)
    result = get(name).plan(path, nfe, grid, **options)(denoiser, path.prior_std * POINTS)
    return result, denoiser.nfe


def test_free_corrector_of_order_one_is_order_two_on_equal_steps_only():
    for grid, same in (("uniform", True), ("quadratic", False)):
        corrected, plain = run("flow-solver", 9, grid, order=1)[0], run("flow-solver", 9, grid, corrector="none")[0]
        assert torch.allclose(corrected, plain, rtol=0, atol=1e-12) is same


def test_order_one_is_euler():
    assert torch.equal(run("flow-solver", 7, "shift", order=1, corrector="none")[0], run("euler", 7, "shift")[0])
    multistep, euler = run("ipndm", 7, "karras", Edm(), order=1)[0], run("edm-euler", 7, "karras", Edm())[0]
    assert torch.allclose(multistep, euler, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "made"),
    [({}, 13), ({"corrector": "none"}, 13), ({"corrector": "pec_final"}, 13), ({"corrector": "pece"}, 12),
     ({"order": 4, "warmup": "rk"}, 13), ({"order": 3, "warmup": "rk", "corrector": "pece"}, 12)],
)  # fmt: skip
def test_flow_solver_evaluations(options, made):
    assert run("flow-solver", 13, "uniform", **options)[1] == made


def test_variants_agree_up_to_two_points():
    assert torch.allclose(
        run("flow-solver", 8, "uniform", corrector="none", variant="B")[0],
        run("flow-solver", 8, "uniform", corrector="none")[0], atol=1e-13,
    )  # fmt: skip


def test_published_weights_of_ipndm_v_are_exact_up_to_two_points_only():
    same = [
        torch.allclose(run("ipndm-v", 9, "karras", Edm(), order=q)[0],
                       run("ipndm-v", 9, "karras", Edm(), order=q, official=True)[0], atol=1e-9)
        for q in (1, 2, 3, 4)
    ]  # fmt: skip
    assert same == [True, True, False, False]


@pytest.mark.parametrize(("name", "highest"), [("deis", 3), ("ipndm", 4), ("ipndm-v", 4), ("flow-solver", 4)])
def test_orders_that_do_not_exist(name, highest):
    for order in (0, highest + 1):
        with pytest.raises(ValueError, match=f"order runs from 1 to {highest}, not {order}"):
            get(name).plan(VPLinear(), 12, order=order)


def test_unknown_corrector():
    with pytest.raises(ValueError, match="unknown corrector 'pecec'; did you mean"):
        get("flow-solver").plan(VPLinear(), 12, corrector="pecec")
