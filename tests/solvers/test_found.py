"""Grids that are found: the searches against official code, and the shelf that keeps what they found."""

import gzip
import json

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers.found.searches import (
    dmn,
    dmn_bound,
    follow,
    gits,
    gits_costs,
    oss,
    oss_medians,
    oss_official,
)
from fastsample.solvers.found.shelf import FoundGrid, add_grid, found_grid, of_model
from fastsample.solvers.grids import BudgetError, Grid, GridError
from fastsample.solvers.proofs.golden import SHIPPED
from fastsample.solvers.spec import Spec, complete

CASES = json.loads(gzip.decompress((SHIPPED / "searched_schedules.json.gz").read_bytes()))["schedules"]
SHORT = [
    case for case in CASES if not (case["schedule"] == "oss" and case["nfe"] > 4)
]  # the loops of its code are slow


def kind(*names):
    return [pytest.param(case, id=case["id"]) for case in SHORT if case["schedule"] in names]


@pytest.mark.parametrize("case", kind("gits"))
def test_gits_finds_the_official_lists(case):
    given, path = case["options"], Edm()
    names = {"polynomial": "karras", "logsnr": "logsnr", "time_uniform": "vp-time:rho=2"}
    times = Grid.parse(names[given["candidate_grid"]])(path, given["teacher_points"] - 1, 80.0, 0.002)
    x = 80 * torch.from_numpy(np.random.default_rng(101).standard_normal((64, 2)))
    teacher = follow(ring_mixture(path).eps, x, times, 4 if given["teacher"] == "ipndm" else 1)
    found = gits(gits_costs(teacher, given["metric"]), case["nfe"], given["coeff"])
    assert found == case["indices"]
    assert [times[i] for i in found] == pytest.approx(case["times"], rel=1e-9)


@pytest.mark.parametrize("case", kind("oss", "oss-paper"))
def test_oss_finds_the_lists_of_the_paper_and_of_its_code(case):
    s = np.linspace(0, 1, case["options"]["teacher_steps"] + 1)
    s = s if case["options"]["teacher_grid"] == "uniform" else 3 * s / (1 + 2 * s)
    times = (1 - (1e-3 + (1 - 1e-3) * s))[::-1].tolist()
    x, slope = torch.from_numpy(np.random.default_rng(102).standard_normal((6, 2))), ring_mixture(LinearFlow()).velocity
    search = oss if case["schedule"] == "oss-paper" else oss_official
    found = search(slope, follow(slope, x, times, 1), case["nfe"])
    assert found == case["indices_per_sample"]
    assert oss_medians(found) == case["indices_median"]


@pytest.mark.parametrize("case", kind("dmn"))
def test_dmn_has_the_official_bound(case):
    assert dmn_bound(VPLinear(t_data=case["options"]["t_end"]), case["lambdas"]) == pytest.approx(
        case["objective"], rel=1e-9
    )


def test_dmn_finds_the_one_minimum_of_few_steps():
    path = VPLinear()
    starts = [[path.lam(t) for t in Grid.parse(name)(path, 4, 1.0, 1e-3)] for name in ("logsnr", "uniform")]
    (case,) = [case for case in CASES if case["id"] == "dmn|nfe4|unif|tend0.001"]
    assert dmn_bound(path, dmn(path, starts)) <= case["objective"] + 1e-6


def test_too_many_steps_for_a_teacher_are_refused():
    path, times = Edm(), (80.0, 1.0, 0.002)
    teacher = follow(ring_mixture(path).eps, torch.ones(2, 2, dtype=torch.float64), times, 1)
    for search in (lambda: gits(gits_costs(teacher), 3), lambda: oss(ring_mixture(path).eps, teacher, 3)):
        with pytest.raises(ValueError, match=r"a teacher of 2 steps has no 3 of them"):
            search()


def kept(model, nfe=3):
    return FoundGrid(
        name="gits", model=of_model(model, 0.0), solver=complete("dpmpp-2m"), nfe=nfe, times=(1.0, 0.7, 0.2, 1e-3),
        trained_on="squared error", seed=2**31, samples=8, evaluations=100, settings="by hand",
    )  # fmt: skip


def test_a_found_grid_is_of_its_model_solver_and_budget_only(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    model, spec = open_model("gmm2d"), Spec.parse("dpmpp-2m@gits")
    with pytest.raises(GridError, match=r"`fastsample find gits --model gmm2d --solver dpmpp-2m:.* --nfe 3` finds it"):
        spec.plan_for(model, 3)
    add_grid(kept(model))
    plan, _ = spec.plan_for(model, 3)
    assert (str(plan.grid), plan.times, plan.trained_on) == ("gits", (1.0, 0.7, 0.2, 1e-3), "squared error")
    with pytest.raises(BudgetError, match=r"is not found yet for dpmpp-2m:.* at NFE 4"):
        spec.plan_for(model, 4)
    for other, name in (("unipc@gits", "gmm2d"), ("dpmpp-2m:order=1@gits", "gmm2d"), ("dpmpp-2m@gits", "gmm2d-flow")):
        with pytest.raises(GridError, match=r"is not found yet"):
            Spec.parse(other).plan_for(open_model(name), 3)
    with pytest.raises(ValueError, match=r"grid gits is found for a model"):
        spec.plan(model.path, 3)


def test_a_damaged_grid_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    model = open_model("gmm2d")
    file = add_grid(kept(model))
    file.write_text(file.read_text().replace("0.7", "0.6"))
    with pytest.raises(GridError, match=r"is no grid that was found .*: find it again"):
        found_grid("gits", model, complete("dpmpp-2m"), 3)


def test_a_found_grid_has_no_parameters():
    with pytest.raises(GridError, match=r"grid dmn is found and has no parameters, not 'rho=2'"):
        Grid.parse("dmn:rho=2")
