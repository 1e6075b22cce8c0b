"""GS and LD3: from the numbers of a checkpoint to its table."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers.learned.gs import Corrections, gs_table, gs_times
from fastsample.solvers.learned.ld3 import ld3_times
from fastsample.solvers.proofs.golden import SHIPPED
from fastsample.solvers.solver import get
from fastsample.solvers.table import play, trace
from fastsample.solvers.table_file import TableFile


def golden(name):
    return json.loads(gzip.decompress((SHIPPED / f"{name}.json.gz").read_bytes()))["cases"]


def table_of(case):
    told, path = case["options"]["parameters"], VPLinear(t_noise=case["t_start"], t_data=case["t_end"])
    a, c = (np.array([told[f"{name}{m}_diff"] for m in range(1, case["order"] + 1)]) for name in "ac")
    numbers = Corrections(np.array(told["t_couple"]), a, c, case["options"]["use_theory_coef"])
    times = gs_times(told["mu_logit"], case["t_start"], case["options"]["t_eps"])
    return path, gs_table(path, path, times, numbers)


@pytest.mark.parametrize("case", golden("gs"), ids=lambda case: case["id"])
def test_the_numbers_of_gs_are_its_table(case):
    (_, table), told = table_of(case), case["table"]
    assert table.coordinate == told["coordinate"]
    assert table.end == told["end"]
    assert np.allclose(table.times, told["times"], rtol=0, atol=1e-12)
    assert np.allclose(table.a, told["a"], rtol=1e-10, atol=1e-10)
    for ours, row in zip(table.b, told["b"], strict=True):
        assert np.allclose(ours[: len(row)], row, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", golden("ld3"), ids=lambda case: case["id"])
def test_the_numbers_of_ld3_are_its_times(case):
    given, path = case["options"], Edm() if case["problem"] == "gmm2d_edm" else VPLinear()
    logits, offsets = np.array(given["params1"]), np.array(given["params2"])
    steps, evaluations = ld3_times(path, logits, offsets, given["time_mode"], given["win_rate"], official=True)
    assert np.allclose(steps, case["timesteps"], rtol=1e-12, atol=0)
    assert np.allclose(evaluations, case["evaluation_times"], rtol=1e-12, atol=0)


def test_gs_without_corrections_is_the_published_dpm_solver_3m():
    """From noise alone the third step has no second difference: there the rules of the coefficient differ."""
    for path in (VPLinear(), LinearFlow(), Edm()):
        plan = get("dpmpp-3m").plan(path, 6, "uniform", official=True, lower_order_final="never")
        none = Corrections(np.zeros(6), np.zeros((6, 6)), np.zeros((6, 6)))
        ours, known = gs_table(path, path, plan.times, none, "x0"), trace(plan, "x0")
        assert np.allclose(ours.a, known.a, rtol=1e-10, atol=1e-12)
        rows = 3 if path.name == "flow" else 7
        assert np.allclose(ours.b[:rows], known.b[:rows], rtol=1e-10, atol=1e-10)


def test_offsets_of_mode_lambda_stay_within_half_a_gap_of_lambda():
    """The released code takes the gaps of the logits: at equal logits it moves nothing."""
    path, logits, offsets = VPLinear(), np.ones(6), np.full(6, 0.3)
    lam = [np.array([path.lam(t) for t in one]) for one in ld3_times(path, logits, offsets, "lambda")]
    assert np.allclose((lam[1] - lam[0])[1:-1], 0.3, rtol=0, atol=1e-9)
    steps, moved = ld3_times(path, logits, offsets, "lambda", official=True)
    assert (steps == moved).all()
    with pytest.raises(ValueError, match="lambda"):
        ld3_times(LinearFlow(), logits, offsets, "lambda")


def test_evaluations_apart_from_the_steps_are_kept_in_a_file():
    path, table = table_of(golden("gs")[4])  # it begins at 1.0046, before the interval
    facts = {"solver": "gs-published", "title": "GS", "paper": "2510.17699"}
    assert TableFile.of(table, path, apart=True, **facts).table.times[0] == table.times[0] > 1
    with pytest.raises(ValueError, match="outside the path's interval"):
        TableFile.of(table, path, **facts)
    with pytest.raises(ValueError, match="no noise level"):
        TableFile.of(replace(table, times=np.array([*table.times[:-1], -0.01])), path, apart=True, **facts)


def test_a_vp_solver_steps_on_its_own_path_for_a_model_of_another():
    """As GAS takes EDM's networks: the same samples, scaled."""
    vp, n = VPLinear(), 5
    edm = Edm().between(vp.nsr(vp.t_noise), vp.nsr(vp.t_data))
    rng = np.random.default_rng(0)
    numbers = Corrections(0.01 * rng.normal(size=n), *(0.1 * rng.normal(size=(2, n, n))))
    times = gs_times(np.array([1.0, 0.7, 0.4, 0.1]))
    x = torch.from_numpy(rng.normal(size=(4, 2)))
    results = []
    for path in (vp, edm):
        table = gs_table(path, vp, times, numbers, "x0")
        start = x * path.sigma(path.t_noise) / vp.sigma(vp.t_noise)
        size = np.hypot(path.alpha(path.t_data), path.sigma(path.t_data))
        results.append(play(table, ring_mixture(path), start) / size)
    assert torch.allclose(results[0], results[1], rtol=0, atol=1e-9)
