"""DPM-Solver with steps of its own, and k-diffusion's: each sample for itself, or one step for the batch."""

import pytest
import torch

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.path import Edm, LinearFlow, VPLinear
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace

PATHS = {"vp": VPLinear(), "flow": LinearFlow(), "edm": Edm()}
POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NAMES = ("dpm-adaptive", "dpm-adaptive-k")


def ran(name, x=POINTS, path=PATHS["vp"], make=ring_mixture, **options):
    """(samples, evaluations of each)."""
    denoiser = make(path)
    return get(name).plan(path, 10, **options)(denoiser, path.prior_std * x), denoiser.evaluations(len(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_smaller_tolerance_costs_more_and_errs_less(name, order, path):
    exact = get("rk4").plan(path, 1000, "logsnr" if path.name == "edm" else None)(
        ring_mixture(path), path.prior_std * POINTS
    )
    errors, made = [], []
    for tolerance in (0.1, 0.01, 0.001):
        x, evaluations = ran(name, path=path, order=order, rtol=tolerance, atol=0.2 * tolerance)
        errors.append(float((x - exact).square().mean().sqrt()))
        made.append(sum(evaluations))
        assert all(count % order == 0 for count in evaluations)
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2], errors
    assert errors[2] < 3e-3
    assert made == sorted(made)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [ring_mixture, lambda path: image_mixture(path, (1, 4, 4))], ids=["plane", "images"])
def test_a_sample_depends_on_no_other(name, make):
    """In float64: whatever the batch, equal bit for bit; with one step for the batch it is not."""
    x = torch.randn(16, *make(PATHS["vp"]).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together, made = ran(name, x, make=make)
    for size in (1, 5):
        parts = [ran(name, x[low : low + size], make=make) for low in range(0, 16, size)]
        assert torch.equal(torch.cat([part for part, _ in parts]), together)
        assert [count for _, counts in parts for count in counts] == made
    assert len(set(made)) > 1
    official, counts = ran(name, x, make=make, official=True)
    assert len(set(counts)) == 1
    assert not torch.equal(official[:1], ran(name, x[:1], make=make, official=True)[0])


@pytest.mark.parametrize("name", NAMES)
def test_one_step_for_a_batch_of_one_is_its_own(name):
    own, official = ran(name, POINTS[:1]), ran(name, POINTS[:1], official=True)
    torch.testing.assert_close(own[0], official[0], rtol=0, atol=1e-12)
    assert own[1] == official[1]


@pytest.mark.parametrize("name", NAMES)
def test_float32_follows_float64(name):
    """Up to a step that rounding lets pass: the solutions are as near to the exact one."""
    exact = ran(name, rtol=1e-4, atol=1e-5)[0]
    fine, coarse = ran(name, rtol=0.01), ran(name, POINTS.float(), rtol=0.01)
    assert coarse[0].dtype == torch.float32
    assert (fine[0] - coarse[0].double()).abs().median() < 1e-3
    one, other = (float((x.double() - exact).square().mean().sqrt()) for x in (fine[0], coarse[0]))
    assert abs(one - other) < 0.5 * one


@pytest.mark.parametrize("name", NAMES)
def test_breakdown_endless_tolerances_and_no_table(name):
    with pytest.raises(ArithmeticError, match="a step fell to"):
        ran(name, POINTS * float("nan"))
    with pytest.raises(ArithmeticError, match="more than 50 evaluations; loosen rtol=1e-06, atol=1e-06 or"):
        ran(name, rtol=1e-6, atol=1e-6, max_nfe=50)
    with pytest.raises(ValueError, match="adaptive: it has no coefficient table"):
        trace(get(name).plan(PATHS["vp"], 10))
    assert ran(name, denoise=True)[1] == [count + 1 for count in ran(name)[1]]


def test_the_end_is_reached_whatever_the_first_step():
    for name in NAMES:
        exact = ran(name, rtol=1e-3, atol=1e-3)[0]
        far = ran(name, rtol=1e-3, atol=1e-3, h_init=50.0)[0]
        assert (far - exact).abs().max() < 0.05
