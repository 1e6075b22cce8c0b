"""dopri5: scipy's RK45, step by step, for each sample alone."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.networks.mlp import ResidualMLP
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.families.adaptive.dopri5 import integrate_adaptively
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace

PATH = LinearFlow()
POINTS = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_each_sample_makes_the_steps_of_scipy(tolerance):
    ours = ring_mixture(PATH)
    run = integrate_adaptively(ours, POINTS[:16], 0.0, PATH.t_data, tolerance, tolerance)
    for i, point in enumerate(POINTS[:16]):
        theirs = ring_mixture(PATH)

        def u(t, y, theirs=theirs):
            return theirs.velocity(torch.as_tensor(y)[None], float(t)).numpy()[0]

        expected = solve_ivp(u, (0.0, PATH.t_data), point.numpy(), method="RK45", rtol=tolerance, atol=tolerance)
        made = ours.evaluations(16)[i]
        assert made == theirs.nfe == 2 + 6 * (run.accepted[i] + run.rejected[i])
        assert run.accepted[i] == len(expected.t) - 1
        assert np.abs(run.x[i].numpy() - expected.y[:, -1]).max() < 1e-10
    assert len(set(ours.evaluations(16))) > 3


@pytest.mark.parametrize("make", [ring_mixture, lambda path: image_mixture(path, (1, 4, 4))], ids=["plane", "images"])
def test_a_sample_depends_on_no_other(make):
    """In float64, whose results are equal bit for bit: batches of 1, 7 and 64, and other companions."""
    shape = make(PATH).shape
    x = torch.randn(64, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {}
    for batch in (1, 7, 64):
        parts = []
        for low in range(0, 64, batch):
            denoiser = make(PATH)
            result = get("dopri5").plan(PATH, 10)(denoiser, x[low : low + batch])
            parts += zip(result, denoiser.evaluations(len(result)), strict=True)
        found[batch] = parts
    wild = torch.cat([x[:1], 30 * x[1:]])
    found["wild"] = [(get("dopri5").plan(PATH, 10)(denoiser := make(PATH), wild)[0], denoiser.evaluations(1)[0])]
    for parts in found.values():
        for (one, made), (other, counted) in zip(parts, found[64], strict=False):
            assert torch.equal(one, other)
            assert made == counted


def labelled(rows, guidance=0.0):
    """A denoiser of images on a VP path whose network knows classes, for these samples of a batch."""
    torch.manual_seed(0)
    network = Labelled().double().eval()
    labels = torch.nn.functional.one_hot(torch.arange(12) % 5, 5).double()[rows]
    convention = Convention(VPLinear(), "x0")
    return NetworkDenoiser(network, convention, labels=labels, guidance=guidance, null_labels=torch.zeros_like(labels))


class Labelled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = ResidualMLP(img_resolution=4, in_channels=1, out_channels=1, width=16, blocks=1)
        self.shift = torch.nn.Linear(5, 1)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.15)

    def forward(self, x, times, labels):
        return (self.inner(x, times) + self.shift(labels)[:, :, None, None]).tanh()


@pytest.mark.parametrize(("guidance", "options"), [(0.0, {}), (1.5, {"denoise": True}), (1.5, {"afs": True})], ids=str)
@torch.no_grad()
def test_networks_labels_and_guidance_go_with_their_samples(guidance, options):
    x = torch.randn(12, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plan = get("dopri5").plan(VPLinear(), 10, **options)
    together = labelled(range(12), guidance)
    result = plan(together, x)
    for i in range(0, 12, 4):
        alone = labelled([i], guidance)
        torch.testing.assert_close(plan(alone, x[i : i + 1])[0], result[i], rtol=0, atol=1e-9)
        assert alone.evaluations(1) == together.evaluations(12)[i : i + 1]
    assert len(set(together.evaluations(12))) > 1
    if "afs" not in options:
        exact = get("rk4").plan(VPLinear(), 400, denoise=options.get("denoise", False))
        torch.testing.assert_close(result, exact(labelled(range(12), guidance), x), rtol=0, atol=1e-3)


def test_ignores_the_budget_and_has_no_table():
    results = [get("dopri5").plan(PATH, nfe)(ring_mixture(PATH), POINTS) for nfe in (5, 50)]
    assert torch.equal(*results)
    with pytest.raises(ValueError, match="adaptive: it has no coefficient table"):
        trace(get("dopri5").plan(PATH, 10))


def test_runs_on_another_path_in_float32():
    denoiser = ring_mixture(VPLinear())
    exact = get("rk4").plan(VPLinear(), 2000)(denoiser, POINTS)
    assert (get("dopri5").plan(VPLinear(), 10)(denoiser, POINTS.float()).double() - exact).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rtol": 0.0}, "rtol runs from 1e-13 to 1, not 0"),
        ({"rtol": float("nan")}, "rtol runs from 1e-13 to 1, not nan"),
        ({"atol": -1.0}, "atol runs from 1e-15 to 1, not -1"),
        ({"atol": float("inf")}, "atol runs from 1e-15 to 1, not inf"),
        ({"max_nfe": 7}, r"max_nfe runs from 8 to 1e\+06, not 7"),
    ],
)
def test_tolerances_have_ranges(options, told):
    with pytest.raises(ValueError, match=told):
        get("dopri5").plan(PATH, 10, **options)


def test_breakdown_and_tolerances_that_never_end():
    with pytest.raises(ArithmeticError, match="a step fell to"):
        get("dopri5").plan(PATH, 10)(ring_mixture(PATH), POINTS * float("nan"))
    denoiser = ring_mixture(PATH)
    with pytest.raises(ArithmeticError, match="more than 100 evaluations; loosen rtol=1e-12, atol=1e-12 or raise"):
        get("dopri5").plan(PATH, 10, rtol=1e-12, atol=1e-12, max_nfe=100)(denoiser, POINTS)
    assert max(denoiser.evaluations(64)) <= 100
