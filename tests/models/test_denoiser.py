import pytest
import torch

from fastsample.models.altered import Thresholded
from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser, convert, weights
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, SubVPLinear, VPLinear

PATHS = [VPLinear(), SubVPLinear(), DiscreteVP.ddpm(), Edm(), LinearFlow()]
x = torch.randn(32, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("have", ["x0", "eps", "velocity", "v"])
@pytest.mark.parametrize("want", ["x0", "eps", "velocity", "v"])
def test_every_prediction_follows_from_every_other(path, have, want):
    denoiser = ring_mixture(path)
    t = 0.5 * (path.t_noise + path.t_data)
    c_x, c_f = convert(path, t, have, weights(path, t, want))
    expected = denoiser.predict(x, t, want)
    torch.testing.assert_close(c_x * x + c_f * denoiser.predict(x, t, have), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_eps_is_the_score(path):
    denoiser = ring_mixture(path)
    t = 0.3 * path.t_noise + 0.7 * path.t_data
    alpha, sigma = path.alpha(t), path.sigma(t)
    point = x.clone().requires_grad_()
    variance = (0.15 * alpha) ** 2 + sigma**2
    squares = (point[:, None] - alpha * denoiser.means).square().sum(-1)
    score = torch.autograd.grad(torch.logsumexp(-squares / (2 * variance), 1).sum(), point)[0]
    torch.testing.assert_close(denoiser.eps(x, t), -sigma * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("other", PATHS, ids=lambda path: path.name)
def test_the_view_on_another_path_is_that_paths_own_denoiser(path, other):
    view, own = ring_mixture(path).on(other), ring_mixture(other)
    for share in (0.2, 0.5, 0.8):
        lam = -2.0 + 4.0 * share
        t = other.t_of_lam(lam)
        for want in ("x0", "eps", "velocity"):
            torch.testing.assert_close(view.predict(x, t, want), own.predict(x, t, want), rtol=1e-8, atol=1e-8)


def test_a_view_counts_on_both_sides():
    base = ring_mixture(VPLinear())
    view = base.on(LinearFlow())
    view.velocity(x, 0.5)
    view.x0(x, 0.5)
    assert (base.nfe, view.nfe) == (2, 2)


def test_mixture_moments_match_its_samples():
    mixture = image_mixture(VPLinear(), (3, 8, 8), components=4)
    data = mixture.sample(4000, torch.Generator().manual_seed(0))
    assert data.shape == (4000, 3, 8, 8)
    assert (data.mean(0).flatten() - mixture.means.mean(0)).abs().max() < 0.05
    at_noise = mixture.x0(torch.randn(4, 3, 8, 8, dtype=torch.float64), VPLinear().t_noise)
    assert (at_noise.flatten(1) - mixture.means.mean(0)).abs().max() < 0.1


class Conditional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.times = []

    def forward(self, x, times, labels=None):
        self.times.append(times)
        return self.scale * x + (0 if labels is None else labels.sum(1)[:, None, None, None])


def test_network_denoiser_time_scale_dtype_and_guidance():
    network = Conditional()
    image = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    plain = NetworkDenoiser(network, Convention(VPLinear(), "eps", 1000.0))
    out = plain.eps(image, 0.5)
    assert out.dtype == torch.float64
    assert network.times[-1].tolist() == [500.0, 500.0]
    labels = torch.eye(2)
    eps = Convention(VPLinear(), "eps")
    guided = NetworkDenoiser(network, eps, labels=labels, guidance=1.5, null_labels=torch.zeros(2, 2))
    expected = 2.5 * (2 * image.float() + 1) - 1.5 * 2 * image.float()
    torch.testing.assert_close(guided.eps(image.float(), 0.5), expected)
    assert (guided.nfe, guided.forwards(0.5)) == (1, 2)
    with pytest.raises(ValueError, match="needs labels"):
        NetworkDenoiser(network, eps, guidance=1.0)


class Plain(torch.nn.Module):
    def forward(self, x, times, labels):
        return 0.1 * times.reshape(-1, 1, 1, 1) * x + labels


class Guided(torch.nn.Module):
    """Returns what it is called with, as eps = x - guide labels."""

    def forward(self, x, times, labels, guide):
        return x - guide * labels


def test_a_classifier_guides_by_sigma_times_the_scale():
    image, labels, path = torch.randn(2, 3, 4, 4), torch.tensor(1.0), VPLinear()
    denoiser = NetworkDenoiser(Guided(), Convention(path, "eps"), labels=labels, classifier_scale=3.0)
    torch.testing.assert_close(denoiser.eps(image, 0.5), image - 3.0 * path.sigma(0.5))
    view = denoiser.on(LinearFlow())
    view.x0(image, 0.5)
    assert (denoiser.nfe, denoiser.forwards(0.5), denoiser.classifier_calls, view.classifier_calls) == (2, 1, 1, 1)
    for prediction, wrong in (("eps", dict(labels=None)), ("eps", dict(guidance=1.0, null_labels=labels)), ("x0", {})):
        with pytest.raises(ValueError, match="classifier guidance needs"):
            NetworkDenoiser(Guided(), Convention(path, prediction), **dict(labels=labels, classifier_scale=1.0) | wrong)


@pytest.mark.parametrize("guide", [{}, {"guidance": 1.5, "guided_channels": 2}, {"classifier_scale": 3.0}], ids=str)
def test_samples_at_points_of_their_own_are_answered_as_alone(guide):
    """Some samples of a batch, each with its own time, prediction, label and guidance, through a view."""

    def denoiser(rows):
        labels = torch.arange(6.0).reshape(6, 1, 1, 1)[rows]
        network = Guided() if "classifier_scale" in guide else Plain()
        null = {"null_labels": 0 * labels} if "guidance" in guide else {}
        return NetworkDenoiser(network, Convention(VPLinear(), "eps", 9.0), labels=labels, **guide, **null)

    image, rows = torch.randn(3, 3, 4, 4), [4, 0, 5]
    points = [(0.2, 1.0, 0.0), (0.5, 0.0, 1.0), (0.7, 1.0, -1.0)]
    whole = denoiser(list(range(6)))
    view = whole.on(LinearFlow())
    found = view.each(image, points, rows)
    for i, (row, point) in enumerate(zip(rows, points, strict=True)):
        alone = denoiser([row]).on(LinearFlow())
        torch.testing.assert_close(found[i], alone.combine(image[i : i + 1], *point)[0], rtol=1e-5, atol=1e-5)
    view.eps(torch.randn(6, 3, 4, 4), 0.5)
    assert whole.evaluations(6) == view.evaluations(6) == [2, 1, 1, 1, 2, 2]


def test_eps_says_nothing_at_pure_noise():
    with pytest.raises(ZeroDivisionError, match="eps prediction says nothing"):
        convert(LinearFlow(), 0.0, "eps", (1.0, 0.0))


def test_thresholding_bounds_the_data_prediction():
    denoiser = Thresholded(ring_mixture(VPLinear()))
    x0 = denoiser.x0(x, 0.1)
    assert float(x0.abs().max()) <= 1.0
    eps = denoiser.eps(x, 0.1)
    path = VPLinear()
    torch.testing.assert_close(path.alpha(0.1) * x0 + path.sigma(0.1) * eps, x)
    own = denoiser.each(x, [(0.1, 1.0, 0.0)] * len(x), range(len(x)))
    torch.testing.assert_close(own, x0)
    assert denoiser.evaluations(1) == [3]
