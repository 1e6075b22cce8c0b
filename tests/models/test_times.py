"""Distributions of training times: each against its own density, and the published numbers."""

import math

import pytest
import torch

from fastsample.models.training.times import AtNoise, EdmLogNormal, LogitNormal, Uniform, UShaped

SMOOTH = [Uniform(), LogitNormal(), LogitNormal(mean=-0.4, std=1.7), EdmLogNormal(), UShaped(), UShaped(a=1.0)]


@pytest.mark.parametrize("times", SMOOTH, ids=repr)
def test_density_distribution_and_its_inverse_agree(times):
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:-1]
    below = torch.cumulative_trapezoid(times.pdf(u), u)
    torch.testing.assert_close(below, times.cdf(u[1:]) - times.cdf(u[0]), atol=1e-6, rtol=0)
    q = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    torch.testing.assert_close(times.cdf(times.icdf(q)), q, atol=1e-12, rtol=1e-12)
    ends = times.icdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=2e-3, rtol=0)


def test_the_u_shape_has_its_published_numbers():
    """Of a = 4, from the closed form of rfpp's sampler."""
    u, times = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64), UShaped(a=4.0)
    assert times.pdf(u).tolist() == pytest.approx([2.0746294, 2.0746294, 0.5514411], rel=1e-6)
    assert times.cdf(torch.tensor([0.1, 0.25, 0.5], dtype=torch.float64)).tolist() == pytest.approx(
        [0.1725035, 0.3379864, 0.5], rel=1e-6
    )
    torch.manual_seed(0)
    assert times.sample(100_000).var().item() == pytest.approx(0.11558, rel=1e-3)


def test_draws_cover_a_batch_evenly_and_are_not_always_the_same():
    torch.manual_seed(0)
    first, second = Uniform().sample(64), Uniform().sample(64)
    assert not torch.equal(first, second)
    assert [(int(v * 64)) for v in first.sort().values] == list(range(64))


@pytest.mark.parametrize("times", ["uniform", "logit-normal", "u-shaped"])
def test_times_of_a_recipe_have_their_distribution_between_data_and_noise(toy, times):
    torch.manual_seed(0)
    recipe = toy(times={"kind": times})
    drawn = torch.tensor(recipe.draw_times(20_000), dtype=torch.float64)
    assert 0 <= drawn.min() <= drawn.max() <= 0.999  # the path's own time, noise at 0
    shares = torch.tensor([0.1, 0.25, 0.5, 0.9], dtype=torch.float64)
    below = (1 - drawn[:, None] / 0.999 < shares).double().mean(dim=0)
    torch.testing.assert_close(below, recipe.times.cdf(shares), atol=1e-3, rtol=0)


def test_a_span_is_a_share_of_the_paths_time(toy):
    drawn = toy(span=(0.2, 0.6)).draw_times(1000)
    assert min(drawn) == pytest.approx(0.999 * 0.4, abs=1e-3)
    assert max(drawn) == pytest.approx(0.999 * 0.8, abs=1e-3)


@pytest.mark.parametrize("path", ["edm", "vp-linear", "flow"])
def test_edms_times_are_its_noise_levels_on_every_path(toy, path):
    torch.manual_seed(0)
    recipe = toy(times={"kind": "edm-log-normal"}, path=path)
    noise_path = recipe.convention.path
    levels = torch.tensor([math.log(noise_path.nsr(t)) for t in recipe.draw_times(4001) if noise_path.nsr(t) < 1e3])
    direct = torch.distributions.Normal(-1.2, 1.2).icdf(torch.tensor([0.05, 0.3, 0.5, 0.8, 0.95]))
    torch.testing.assert_close(levels.quantile(torch.tensor([0.05, 0.3, 0.5, 0.8, 0.95])), direct, atol=5e-3, rtol=0)


def test_distillation_trains_at_the_noise_end(toy):
    at_noise = {"times": {"kind": "at-noise"}, "flip": False, "coupling": {"kind": "pairs", "teacher": "x", "count": 9}}
    assert set(toy(**at_noise).draw_times(9)) == {0.0}
    assert toy(**at_noise, path="vp-linear").draw_times(2) == [1.0, 1.0]
    assert AtNoise().cdf(torch.tensor([0.5, 1.0])).tolist() == [0.0, 1.0]
