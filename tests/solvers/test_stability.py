"""What `explain` says of errors and of stiff models, against runs of the solvers themselves."""

import json
import warnings

import numpy as np
import pytest
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.proofs.stability import growth, stability
from fastsample.solvers.solver import get
from fastsample.solvers.table import play, trace

from ..command import command

PATHS = {"flow": LinearFlow(), "vp": VPLinear(), "edm": Edm()}


class Linear(Denoiser):
    """dy/dr = z y on the linear path, shown on another."""

    def __init__(self, path, z):
        super().__init__(path)
        self.z = z

    def _combine(self, x, t, p, r):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        y, time = x / (alpha + sigma), alpha / (alpha + sigma)
        velocity = self.z * y
        return p * (y + (1 - time) * velocity) + r * (y - time * velocity)


class Constant(Denoiser):
    """A data prediction of 1, and in each evaluation an error of 1e-3 of the signs given."""

    def __init__(self, path, coordinate, signs):
        super().__init__(path)
        self.coordinate, self.signs, self.made = coordinate, signs, 0

    def predict(self, x, t, prediction):
        assert prediction == self.coordinate
        self.made += 1
        return torch.ones(1, dtype=torch.float64) + 1e-3 * float(self.signs[self.made - 1])

    def _combine(self, x, t, p, r):
        raise AssertionError("asked in another prediction")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "ipndm", "heun", "unipc", "stork"])
def test_the_factor_is_that_of_a_run_on_the_linear_model(name, path):
    where = PATHS[path]
    plan = get(name).plan(where, 8)
    z = np.array([-7.0, -1.0, 1.5])
    told = growth(trace(plan, coordinate_of(where)), where, z)
    sizes = [where.alpha(t) + where.sigma(t) for t in (where.t_noise, plan.end)]
    start = torch.full((1,), sizes[0], dtype=torch.float64)
    found = [float(plan(Linear(where, value), start)) / sizes[1] for value in z]
    np.testing.assert_allclose(told, found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "path"), [("ipndm", "vp"), ("rx-euler", "flow"), ("unipc", "flow")])
def test_errors_in_the_evaluations_move_the_result_by_as_much_as_is_said(name, path):
    where = PATHS[path]
    coordinate = coordinate_of(where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = trace(get(name).plan(where, 6), coordinate)
    x = torch.zeros(1, dtype=torch.float64)
    moved, held = (
        play(table, Constant(where, coordinate, signs), x) for signs in (np.sign(table.b[-1]), np.zeros(table.nfe))
    )
    assert float(moved - held) == pytest.approx(1e-3 * stability(table, where).evaluations, rel=1e-9)


def test_steps_of_euler_end_where_the_textbook_says():
    table = trace(get("euler").plan(LinearFlow(), 8, "uniform"))
    told = stability(table, LinearFlow())
    assert told.bears * told.step == pytest.approx(-2, abs=0.01)
    for z, factor, exact in told.factors:
        assert factor == pytest.approx((1 + z / 8) ** 8, rel=0.02, abs=1e-4)  # it ends at 0.999
        assert exact == pytest.approx(np.exp(z), rel=0.03)
    assert (told.evaluations, told.cancellation, told.noise) == (pytest.approx(1, rel=2e-3), pytest.approx(1), 0)


def test_what_amplifies_is_told():
    def explained(solver, nfe, model="cifar10-tiny-flow"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended = command("explain", solver, "--nfe", nfe, "--model", model, "--json")
        assert ended.code == 0
        return json.loads(ended.out)["stability"]

    assert explained("rx-euler", 5)["evaluations"] > 10 * explained("dpmpp-2m", 5)["evaluations"]
    learned = explained("bns", 8, "cifar10-tiny-vp")
    assert learned["evaluations"] > 10
    assert learned["cancellation"] > 10
    assert 0 < explained("euler-ancestral", 5)["noise"] < 1
    assert explained("euler", 5)["noise"] == 0


def test_a_reader_is_told_in_a_sentence():
    told = command("explain", "bns", "--nfe", 8, "--model", "cifar10-tiny-vp")
    text = " ".join(told.out.split())
    assert "an error of 1e-3 in each evaluation changes the result by at most 0.012, 11 times what it would" in text
    assert "does not grow for z from 0 to -5.0" in text
    assert "standard deviation" in " ".join(command("explain", "ddpm", "--nfe", 4).out.split())
