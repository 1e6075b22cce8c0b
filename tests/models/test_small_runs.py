"""The effects that the trainings are made for, against published targets: minutes of training, and exact references."""

import json
import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsample.bench.learning.training import training_data
from fastsample.bench.metrics.trajectories import bending, outer_states
from fastsample.datasets.points import POINTS
from fastsample.models.analytic import GaussianMixture
from fastsample.models.catalogue import open_model
from fastsample.models.recorder import Recorder
from fastsample.models.training.recipe import changed, read_recipe
from fastsample.models.training.times import UShaped
from fastsample.models.training.trainer import train
from fastsample.solvers.solver import get

from . import small_runs as small

TARGETS = json.loads((Path(__file__).parents[1] / "data" / "training_targets.json").read_text())
_RING = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
# means, variances of the components
MIXTURES = {
    "gauss8": (4 * torch.stack([_RING.cos(), _RING.sin()], dim=1), [0.04, 0.04]),
    "two_modes": (torch.tensor([[-8.0, 8.0], [8.0, 8.0]], dtype=torch.float64), [3.0, 0.1]),
}


@pytest.mark.parametrize("data", MIXTURES)
def test_the_exact_velocity_has_the_published_curvature_and_truncation(data):
    means, variances = MIXTURES[data]
    scale = torch.tensor(POINTS[data][2], dtype=torch.float64)  # in units of the prior the noise is isotropic
    model = GaussianMixture(small.PATH, means / scale, (torch.tensor(variances) / scale**2).expand(len(means), 2))
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(777), dtype=torch.float64)
    solution, published = small.sampled(model, "rk4", 100, noise), TARGETS["exact_gmm_independent"][data]
    for nfe, within in {1: 1e-5, 2: 1e-4, 4: 1e-3, 8: 1e-3}.items():  # the published solution has smaller steps
        error = small.rmse(scale * small.sampled(model, "euler", nfe, noise), scale * solution)
        assert error == pytest.approx(published[f"trunc_rmse_nfe{nfe}"], rel=within)
    plan, recorder = get("euler").plan(small.PATH, 20, "uniform"), Recorder(model)
    times, z = outer_states(plan, noise, recorder, plan(recorder, noise))
    bent = {name: float(values.mean()) for name, values in bending(times, scale * z).items()}
    assert bent["curvature"] == pytest.approx(published["curv20"], rel=0.01)
    assert bent["curvature"] / bent["transport"] == pytest.approx(published["relcurv20"], rel=0.01)


@pytest.mark.parametrize("data", POINTS)
def test_the_floor_of_sw2_is_the_published_one(data):
    generator, draw = torch.Generator().manual_seed(777), POINTS[data][1]
    torch.randn(10_000, 2, generator=generator)  # the protocol's noise, which comes first
    floor, _ = TARGETS["results"][f"{data}_coupling"]["independent"]["sw2_floor"]
    assert small.sliced_wasserstein(draw(10_000, generator), draw(10_000, generator)) == pytest.approx(floor, rel=0.1)


def test_u_shaped_times_have_their_closed_forms():
    times, published = UShaped(a=4.0), TARGETS["u_shape_a4"]
    density = times.pdf(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
    expected = [published["p(0)=p(1)"], published["p(0.5)"], published["p(0)=p(1)"]]
    assert density == pytest.approx(expected, rel=1e-6)
    for u in (0.1, 0.25, 0.5):
        assert float(times.cdf(torch.tensor(u, dtype=torch.float64))) == pytest.approx(published[f"cdf({u})"], rel=1e-6)
    assert float(times.sample(10_000).var()) == pytest.approx(published["variance"], rel=1e-3)


def test_a_learned_coupling_straightens_within_seconds(tmp_path):
    bent, data, (noise, _) = {}, training_data("two_modes"), small.bank("two_modes", 1000)
    for name in ("gauss8-flow", "gauss8-curvature"):
        recipe = changed(read_recipe(name), {"images": 200 * 256, "warmup_images": 20 * 256})
        model = open_model(str(train(recipe, data, tmp_path / name).checkpoint))
        _, values = small.trajectory(model.make(model.network, None, 0.0, None).on(small.PATH), 50, noise, 1000)
        bent[name] = values["relcurv50"]
    assert 0.2 < bent["gauss8-flow"] < 0.5  # 0.32 after the full run
    assert bent["gauss8-curvature"] < 0.1 * bent["gauss8-flow"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Study -> what was measured; its folder, $FASTSAMPLE_SMALL_RUNS, keeps what an interrupted session trained."""
    kept = os.environ.get("FASTSAMPLE_SMALL_RUNS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("small-runs")
    folder.mkdir(parents=True, exist_ok=True)
    return lambda study: small.measured(folder, study)


def tolerance(study, quantity):
    """(relative, absolute) tolerance of a quantity, None for one that has none: tolerances_for_reproduction."""
    if quantity == "sw2_nfe100" and study.startswith("gauss8"):
        return 0.0, 0.05
    if quantity.startswith("curv"):
        return 0.08, 0.0
    tenth = quantity.startswith(("trunc_rmse", "pair_rmse", "fd_")) or quantity in ("sw2_nfe1", "sw2_nfe2")
    return (0.1, 0.0) if tenth else None


def deviations(study, found):
    """(deviation in tolerances, in standard errors of the two means, what) of all that have a tolerance.

    Distances of samples far from all digits are left out: there they say how the classifier was trained, which is not
    published whole. Eight plausible ways give 1,020 to 1,675 for the same samples, whose target is 918.
    """
    for variant, published in TARGETS["results"][study].items():
        for quantity, (target, std) in published.items():
            far = quantity.startswith("fd_") and target > 500
            if not far and (allowed := tolerance(study, quantity)) is not None:
                values = found[variant][quantity]
                off, error = abs(float(np.mean(values)) - target), std * math.sqrt(2 / len(values))
                tolerances = off / (allowed[0] * target + allowed[1])
                yield tolerances, off / max(error, 1e-12), f"{variant} {quantity} {values}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    [
        pytest.param(
            study,
            marks=[pytest.mark.xfail(strict=True, reason="SW2@2 of beta 20 and 5 by 12 and 11 %, truncation@4 by 14 %")]
            if study == "gauss8_coupling"
            else [],
        )
        for study in small.STUDIES
    ],
)
def test_targets_are_met(runs, study):
    """Within the tolerance, or within three standard errors where the target's own seeds scatter by more than it."""
    assert not [row for row in deviations(study, runs(study)) if row[0] > 1 and row[1] > 3]


def means(found, quantity):
    return {variant: float(np.mean(values[quantity])) for variant, values in found.items() if quantity in values}


def rising(*values):
    return all(a < b for a, b in pairwise(values))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gauss8", "checker", "two_modes", "digits"])
def test_a_smaller_beta_bends_less(runs, data):
    bent = means(runs(f"{data}_coupling"), "curv50" if data == "digits" else "curv100")
    assert rising(*(bent[variant] for variant in ("beta=1", "beta=5", "beta=20", "independent")))


@pytest.mark.slow
def test_what_a_learned_coupling_gains_and_costs_on_eight_gaussians(runs):
    one, many = (means(runs("gauss8_coupling"), f"sw2_nfe{nfe}") for nfe in (1, 100))
    assert rising(*(one[variant] for variant in ("beta=1", "beta=5", "beta=20", "independent")))
    assert many["beta=1"] > many["independent"]
    assert abs(many["beta=5"] - many["independent"]) < 0.05
    assert abs(many["beta=20"] - many["independent"]) < 0.05


@pytest.mark.slow
def test_with_too_small_a_beta_more_steps_are_worse(runs):
    found = runs("checker_coupling")
    assert rising(*(means(found, f"sw2_nfe{nfe}")["beta=1"] for nfe in (1, 2, 4, 8, 100)))


@pytest.mark.slow
def test_what_a_learned_coupling_gains_and_costs_on_digits(runs):
    two, fifty = (means(runs("digits_coupling"), f"fd_nfe{nfe}") for nfe in (2, 50))
    assert rising(*(two[variant] for variant in ("beta=1", "beta=5", "beta=20", "independent")))
    worst = fifty.pop("beta=1")
    assert max(fifty.values()) < worst
    assert max(fifty.values()) < 1.05 * min(fifty.values())


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gauss8", "checker"])
def test_reflow_straightens(runs, data):
    for quantity, share in {"curv100": 0.05, "sw2_nfe1": 0.15}.items():
        values = means(runs(f"{data}_reflow"), quantity)
        first = values.pop("1rf")
        assert max(values.values()) < share * first


@pytest.mark.slow
def test_u_shaped_times_and_the_teachers_weights_help_a_reflow(runs):
    error = means(runs("gauss8_reflow"), "pair_rmse_nfe1")
    assert rising(error["2rf_ushape_l2"], error["2rf_uniform_l2"], error["2rf_uniform_l2_scratch"])
    assert error["2rf_ushape_huber"] < error["2rf_uniform_huber"]


@pytest.mark.slow
def test_the_perceptual_loss_helps_a_reflow_of_digits_and_many_steps_show_its_bias(runs):
    one, fifty = (means(runs("digits_reflow"), f"fd_nfe{nfe}") for nfe in (1, 50))
    first, teacher = one.pop("1rf"), fifty.pop("1rf")
    assert rising(*(one[f"2rf_ushape_{loss}"] for loss in ("perchuber", "huber", "l2")))
    assert max(one.values()) < 0.15 * first
    assert min(fifty.values()) > teacher


@pytest.mark.slow
def test_the_anchored_rule_pleases_the_features_and_leaves_the_ode(runs):
    """On a model that is not straight: a sampler must not be ranked by a feature distance alone."""
    found = runs("digits_reflow")
    value = {name: float(np.mean(values)) for name, values in found["1rf"].items()}
    trap = TARGETS["anchored_rule_trap_digits"]  # of a shorter run: FD 79 and 14, RMSE 0.069 and 0.121 at 8 steps
    assert value["fd_new_nfe8"] < 0.3 * value["fd_nfe8"]
    assert value["rmse_new_nfe8"] > 1.5 * value["rmse_nfe8"]
    assert rising(value["rmse_new_nfe4"], value["rmse_new_nfe8"])
    assert value["variance_new_nfe8"] > trap["data variance"] > value["variance_nfe8"]
