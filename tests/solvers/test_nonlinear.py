"""Solvers whose coefficients depend on the sample: a budget and a grid, no table, and no sample depends on another."""

import numpy as np
import pytest
import torch

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.samples import inner
from fastsample.solvers.solver import get, solvers
from fastsample.solvers.spec import table_of
from fastsample.solvers.table import trace

NAMES = sorted(name for name, solver in solvers().items() if solver.nonlinear)
PATHS = {"vp": VPLinear(), "flow": LinearFlow(), "edm": Edm()}
OPTIONS = {"era": ({}, {"k": 3, "error_scale": 0.3}), "evodiff": ({}, {"lower_order_final": False})}


def test_there_are_some():
    assert set(NAMES) == set(OPTIONS)


@pytest.mark.parametrize("make", [ring_mixture, lambda path: image_mixture(path, (3, 5, 5))], ids=["plane", "images"])
@pytest.mark.parametrize(("name", "options"), [(name, one) for name in NAMES for one in OPTIONS[name]], ids=str)
def test_a_sample_depends_on_no_other(name, options, make):
    """Batches of 1, 5 and 16, and other companions: in the plane equal bit for bit, as the model's answers are."""
    path = PATHS["vp"]
    plan = get(name).plan(path, 9, **options)
    shape = make(path).shape
    x = torch.randn(16, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = plan(make(path), x)
    near = 0.0 if len(shape) == 1 else 1e-9
    for size in (1, 5):
        parts = torch.cat([plan(make(path), x[low : low + size]) for low in range(0, 16, size)])
        assert (parts - together).abs().max() <= near
    assert (plan(make(path), torch.cat([x[:1], 30 * x[1:]]))[:1] - together[:1]).abs().max() <= near


def test_bases_of_the_mean_error_depend_on_the_batch():
    path, x = PATHS["vp"], torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = get("era").plan(path, 12, "uniform", k=3, error_scale=0.3, official=True)
    assert not torch.equal(plan(ring_mixture(path), x)[:1], plan(ring_mixture(path), x[:1]))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("name", "options"), [(name, one) for name in NAMES for one in OPTIONS[name]], ids=str)
def test_it_makes_the_evaluations_that_the_plan_foresees(name, options, path):
    for nfe in range(1, 31):
        plan, denoiser = get(name).plan(path, nfe, **options), ring_mixture(path)
        plan(denoiser, path.prior_std * torch.randn(2, 2, dtype=torch.float64))
        assert denoiser.nfe == len(plan.asked())
        assert denoiser.nfe == nfe or (nfe == 2 and not options["lower_order_final"])  # of one step or of two


def test_a_plan_without_finite_coefficients_is_refused():
    with pytest.raises(ValueError, match=r"era at NFE 60: .* grid integer-quad-official, which repeats a time"):
        get("era").plan(DiscreteVP.ddpm(), 60, "integer-quad-official")
    with pytest.raises(ValueError, match=r"evodiff at NFE 6: .* grid uniform, which ends at clean data"):
        get("evodiff").plan(VPLinear(t_data=0.0), 6, "uniform")


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_table(name):
    with pytest.raises(ValueError, match=f"the coefficients of solver {name} depend on the sample"):
        trace(get(name).plan(PATHS["vp"], 6))
    with pytest.raises(ValueError, match="it has no table of them"):
        table_of(name, open_model("gmm2d"), 6)


def test_sums_are_those_of_the_sample_in_any_batch():
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(7, 3, 5, 5, generator=generator) for _ in range(2))
    assert inner(a, b) == pytest.approx((a * b).double().flatten(1).sum(1).numpy(), abs=1e-5)
    assert inner(a, b, 2) == pytest.approx((a * b).double().flatten(2).sum(2).numpy(), abs=1e-5)
    for i in range(7):
        assert inner(a[i : i + 1], b[i : i + 1]) == inner(a, b)[i]
    assert inner(np.ones((2, 3)), np.ones((2, 3))).tolist() == [3, 3]


def test_channels_are_balanced_each_for_itself():
    """EVODiff's products are of a channel: a channel that another model sees as a sample of its own is the same."""
    path = Edm()
    x = path.prior_std * torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = get("evodiff").plan(path, 8)

    flat = ring_mixture(path)

    class Stacked(type(flat)):
        """Two samples of the plane as one of two channels of two pixels."""

        def _combine(self, x, t, p, r):
            return super()._combine(x.reshape(-1, 2), t, p, r).reshape(x.shape)

    stacked = Stacked(path, flat.means, flat.variances)
    together = plan(stacked, x.reshape(2, 2, 2, 1)).reshape(4, 2)
    assert torch.equal(together, plan(ring_mixture(path), x))
