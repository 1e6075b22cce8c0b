"""Guidance by another model, and on an interval alone, against closed forms and by the calls that are made."""

from dataclasses import replace

import pytest
import torch

from fastsample.models.analytic import GaussianMixture, image_mixture, ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.guided import Guided, GuidedWithin, guided_by, guided_within
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear

PATHS = [VPLinear(), DiscreteVP.ddpm(), Edm(), LinearFlow()]
x = torch.randn(16, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
named = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def gaussian(path, mean, variance):
    means, variances = (torch.tensor([value], dtype=torch.float64) for value in (mean, variance))
    return GaussianMixture(path, means, variances)


def data_of(path, t, mean, variance):
    """E[x_0 | x_t = x] of one Gaussian."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    mean = torch.tensor(mean, dtype=torch.float64)
    return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)


@named
@pytest.mark.parametrize("other", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("weight", [0.7, -0.5])
def test_the_guided_velocity_of_gaussians(path, other, weight):
    """The closed form, wherever the guide was trained."""
    guided = Guided(gaussian(path, [1.0, -1.0], 0.3), gaussian(other, [0.2, 0.5], 1.1), weight)
    for lam in (-2.0, 0.0, 2.0):
        t = path.t_of_lam(lam)
        own, guide = data_of(path, t, [1.0, -1.0], 0.3), data_of(path, t, [0.2, 0.5], 1.1)
        d = guide + (1 + weight) * (own - guide)
        eps = (x - path.alpha(t) * d) / path.sigma(t)
        torch.testing.assert_close(guided.x0(x, t), d, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(guided.eps(x, t), eps, rtol=1e-8, atol=1e-8)
        velocity = path.d_alpha(t) * d + path.d_sigma(t) * eps
        torch.testing.assert_close(guided.velocity(x, t), velocity, rtol=1e-8, atol=1e-7)


@named
def test_samples_at_times_of_their_own_are_guided_as_the_batch_is(path):
    def make():
        guided = Guided(ring_mixture(path), ring_mixture(VPLinear(), (2.0, -1.0)), 0.4)
        return GuidedWithin(ring_mixture(path), guided, 0.4, 2.0)

    times = [path.t_of_nsr(nsr) for nsr in (0.1, 0.7, 1.0, 3.0)]
    points, rows, denoiser = [(t, 0.3, 0.8) for t in times], [5, 1, 7, 1], make()
    found = denoiser.each(x[:4], points, rows)
    for i, point in enumerate(points):
        torch.testing.assert_close(found[i : i + 1], make().combine(x[i : i + 1], *point), rtol=1e-9, atol=1e-9)
    assert [denoiser.evaluations(8)[row] for row in (1, 5, 7)] == [2, 1, 1]
    assert [denoiser.calls(8)[row] for row in (1, 5, 7)] == [3, 1, 2]


def test_guidance_is_above_the_low_end_and_up_to_the_high_one():
    own, guide = ring_mixture(Edm()), ring_mixture(Edm(), (2.0, -1.0))
    denoiser = GuidedWithin(own, Guided(own, guide, 1.0), 0.28, 2.9)
    for sigma, inside in ((80.0, 0), (2.91, 0), (2.9, 1), (1.0, 1), (0.2801, 1), (0.28, 0), (0.01, 0)):
        before = own.nfe, guide.nfe, denoiser.calls(1)[0]
        answer = denoiser.x0(x, sigma)
        assert (own.nfe, guide.nfe, denoiser.calls(1)[0]) == (before[0] + 1, before[1] + inside, before[2] + 1 + inside)
        d = ring_mixture(Edm()).x0(x, sigma)
        expected = 2 * d - ring_mixture(Edm(), (2.0, -1.0)).x0(x, sigma) if inside else d
        torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)
    assert denoiser.nfe == 7


@pytest.mark.parametrize(
    ("name", "guide", "told"),
    [
        ("gmm2d", "gmm2d", "gmm2d cannot guide gmm2d: a model that guides itself changes nothing"),
        ("gmm2d", "gmm-image", "gmm-image cannot guide gmm2d: its samples are 3x32x32, and those of gmm2d 2"),
        ("gmm2d-flow", "gmm2d", "gmm2d cannot guide gmm2d-flow: its path begins at sigma 152.2, after gmm2d-flow's"),
    ],
)
def test_a_guide_that_cannot_be_one_says_why(name, guide, told):
    with pytest.raises(ValueError, match=told):
        guided_by(open_model(name), open_model(guide))


def test_the_class_of_a_sample_is_the_guides_too(checkpoint):
    own, alike = open_model(checkpoint("own", classes=4)), open_model(checkpoint("alike", classes=4, seed=1))
    plain, more = open_model(checkpoint("plain", seed=2)), open_model(checkpoint("more", classes=5))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, t = torch.tensor([1, 3]), 0.4
    with torch.no_grad():
        d = own.make(own.network, labels, 0.0, None).x0(images, t)
        for guide, given in ((alike, labels), (plain, None)):
            guided = guided_by(own, guide)
            found = guided.make(guided.network, labels, 1.5, None).x0(images, t)
            d_guide = guide.make(guide.network, given, 0.0, None).x0(images, t)
            torch.testing.assert_close(found, d_guide + 2.5 * (d - d_guide), rtol=1e-5, atol=1e-5)
    for first, second, told in ((own, more, "it has 5 classes, and own 4"), (plain, own, "it has 4 .* and plain none")):
        with pytest.raises(ValueError, match=told):
            guided_by(first, second)


def test_without_a_weight_nothing_but_the_model_is_asked():
    model = guided_within(guided_by(open_model("gmm2d"), open_model("gmm2d-flow-mean")), 0.1, 2.0)
    denoiser = model.make(None, None, 0.0, None)
    torch.testing.assert_close(denoiser.x0(x, 0.3), ring_mixture(VPLinear()).x0(x, 0.3), rtol=0, atol=0)
    assert denoiser.calls(1) == [1]


def test_an_exact_model_and_a_network_guide_one_another():
    tiny = open_model("cifar10-tiny-vp")
    exact = replace(open_model("gmm-image"), num_classes=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        d = tiny.make(tiny.network, None, 0.0, None).x0(images, 0.4)
        other = image_mixture(VPLinear()).x0(images, 0.4)
        for one, two, expected in ((tiny, exact, 1.5 * d - 0.5 * other), (exact, tiny, 1.5 * other - 0.5 * d)):
            model = guided_by(one, two)
            found = model.make(model.network, None, 0.5, None).x0(images, 0.4)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
