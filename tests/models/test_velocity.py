"""Diffusion networks as velocities: exact on data whose denoiser is known, equal to rfpp's form, and its files fit."""

import math

import pytest
import torch
from torch import nn

from fastsample.models.analytic import GaussianMixture, image_mixture
from fastsample.models.networks.registry import build_network
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.networks.velocity import Velocity
from fastsample.models.path import LinearFlow, path_named
from fastsample.models.public.cards import card_named
from fastsample.models.public.conversion import open_converted
from fastsample.models.public.fetch import fetch
from fastsample.models.public.readers import read_weights

SHAPE = (3, 4, 4)
SHARES = torch.tensor([1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.993, 0.999, 1 - 1e-4, 1 - 1e-5])
LABELS = {"edm": (1.0, 0.0), "vp-linear": (999.0, 0.0), "vp-discrete": (1000.0, -1.0), "flow": (-1.0, 1.0)}
VP = [(path, prediction) for path in ("vp-linear", "vp-discrete") for prediction in ("eps", "x0", "v")]
FLOW = [("flow", prediction) for prediction in ("eps", "x0", "v", "velocity")]


def one_gaussian(path):
    means = torch.linspace(-0.8, 0.8, 48, dtype=torch.float64).reshape(1, *SHAPE)
    return GaussianMixture(path, means, torch.tensor([0.3**2], dtype=torch.float64))


def images(path):
    return image_mixture(path, SHAPE)


class Exact(nn.Module):
    """The exact prediction of a data set on a path, called with the labels of a network; computed in float64."""

    def __init__(self, data, path, prediction):
        super().__init__()
        self.denoiser, self.prediction, (self.scale, self.shift) = data(path_named(path)), prediction, LABELS[path]

    def forward(self, x, label):
        times = ((label.double() - self.shift) / self.scale).tolist()
        rows = [self.row(one[None].double(), t) for one, t in zip(x, times, strict=True)]
        return torch.cat(rows).to(x.dtype)

    def row(self, x, t):
        if self.prediction != "edm-F":
            return self.denoiser.predict(x, t, self.prediction)
        sigma = math.exp(4 * t)
        total = sigma**2 + 0.25
        noisy = math.sqrt(total) * x
        return math.sqrt(total) / (0.5 * sigma) * (self.denoiser.x0(noisy, sigma) - 0.25 / total * noisy)


def states(data, shares):
    """z_s of samples, float64."""
    generator = torch.Generator().manual_seed(1)
    x0 = data(LinearFlow()).sample(len(shares), generator)
    s = shares.double().reshape(-1, 1, 1, 1)
    return (1 - s) * x0 + s * torch.randn(x0.shape, generator=generator, dtype=torch.float64)


def truth(data, z, shares):
    """E[x_0 - eps | z_s], float64."""
    flow = data(LinearFlow())
    return torch.cat([flow.velocity(one[None].double(), 1 - s) for one, s in zip(z, shares.tolist(), strict=True)])


def velocity_of(data, path, prediction):
    return Velocity(Exact(data, path, prediction), path, prediction, *LABELS[path])


@pytest.mark.parametrize(("path", "prediction"), [("edm", "edm-F"), *VP, *FLOW])
@pytest.mark.parametrize("data", [one_gaussian, images])
def test_it_is_the_mean_of_data_minus_noise(data, path, prediction):
    velocity = velocity_of(data, path, prediction)
    low, high = velocity.span
    shares = SHARES.double()
    shares = shares[(shares >= low) & (shares <= high)]
    assert len(shares) >= 8
    z = states(data, shares)
    torch.testing.assert_close(velocity(z, shares), truth(data, z, shares), rtol=0, atol=1e-9)


def test_float32_keeps_edm_exact_at_both_ends():
    z, s = states(one_gaussian, SHARES).float(), SHARES
    ours = velocity_of(one_gaussian, "edm", "edm-F")(z, s)
    assert ours.dtype == torch.float32
    assert (ours - truth(one_gaussian, z, s)).abs().max() < 1e-6


@pytest.mark.parametrize(("path", "prediction"), VP)
@pytest.mark.parametrize("share", [0.0, 1e-5, 1 - 1e-5, 1.0])
def test_beyond_the_ends_of_a_diffusion_it_is_off_by_what_the_end_misses(path, prediction, share):
    shares = torch.full((8,), share, dtype=torch.float64)
    z = states(one_gaussian, shares)
    ours = velocity_of(one_gaussian, path, prediction)(z, shares)
    assert (ours - truth(one_gaussian, z, shares)).abs().max() < 0.15


class Labelled(nn.Module):
    """Shows what it was called with."""

    def forward(self, x, label, classes=0.0):
        return x * label.reshape(-1, *[1] * (x.ndim - 1)) + classes


def test_the_whole_linear_path_is_passed_through():
    z, s, classes = torch.randn(3, 2), torch.tensor([0.0, 0.25, 1.0]), torch.ones(3, 2)
    ours = Velocity(Labelled(), "flow", "velocity", 1000.0, -1.0)(z, s, classes)
    assert torch.equal(ours, Labelled()(z, torch.tensor([999.0, 749.0, -1.0]), classes))


@pytest.mark.parametrize(("path", "prediction"), [("edm", "edm-F"), *VP, *FLOW])
def test_it_never_asks_the_device_for_a_value(path, prediction):
    """Tensors of the device meta have none."""
    velocity = Velocity(Labelled(), path, prediction).to("meta")
    out = velocity(torch.empty(4, *SHAPE, device="meta"), torch.empty(4, device="meta"))
    assert (out.shape, out.device.type) == ((4, *SHAPE), "meta")


@pytest.mark.parametrize(
    ("path", "prediction", "told"),
    [
        ("ve", "eps", "unknown path 've' of a velocity; known: edm, vp-linear, vp-discrete, flow"),
        ("edm", "x0", "unknown prediction 'x0' on path edm; known: edm-F"),
        ("vp-linear", "velocity", "unknown prediction 'velocity' on path vp-linear; known: eps, x0, v"),
    ],
)
def test_what_is_not_known_is_told(path, prediction, told):
    with pytest.raises(ValueError, match=told):
        Velocity(nn.Identity(), path, prediction)


# rfpp's networks and those of fast-ode, at reduced width.

SMALL = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


def config_of(card, **changes):
    return {**card_named(card).network.config, **SMALL, **changes}


def filled(network):
    """With random weights throughout: the last layer and some others start at zero or almost."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "aux_conv" in name or not parameter.any():
                parameter.normal_(std=0.2)
    return network.eval()


def song(config):
    return SongUNet(**{name: value for name, value in config.items() if name != "unet_type"}).eval()


def test_it_is_the_velocity_of_rfpp_and_loads_its_files(tmp_path):
    config = config_of("rfpp-cifar10")
    official = filled(build_network("EDMPrecondVel", config))
    assert (official.model.map_augment, official.model.map_noise) != (None, None)
    torch.save(official.state_dict(), tmp_path / "rfpp.pth")
    tensors = read_weights(tmp_path / "rfpp.pth", "state-dict").tensors
    assert "model.map_noise.freqs" in tensors
    ours = Velocity(song(config), "edm", "edm-F")
    ours.load_state_dict(tensors, strict=True)
    s = torch.tensor([1e-4, 0.01, 0.3, 0.7, 0.99, 1 - 1e-5], dtype=torch.float64)
    z = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected, found = official.double()(z, s), ours.double()(z, s)
        assert ours.model(z, s).abs().mean() > 0.1
    torch.testing.assert_close(found, -expected, rtol=0, atol=1e-9)


def assert_same(network, other):
    z, s = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 1.0])
    with torch.no_grad():
        assert torch.equal(network(z, s), other(z, s))


def test_the_flow_of_fast_ode_loads(tmp_path):
    config = config_of("fast-ode-cifar10")
    official = filled(song(config))
    torch.save(official.state_dict(), tmp_path / "flow_model_500000_ema.pth")
    ours = song(config)
    ours.load_state_dict(read_weights(tmp_path / "flow_model_500000_ema.pth", "state-dict").tensors, strict=True)
    assert_same(ours, official)


def test_the_encoder_of_fast_ode_loads_through_a_card_that_drops_its_prefix(tmp_path):
    config = config_of("fast-ode-cifar10", out_channels=6)
    official, file = filled(song(config)), tmp_path / "forward_model_500000_ema.pth"
    torch.save({f"encoder.{name}": tensor for name, tensor in official.state_dict().items()}, file)
    changes = "\n".join(f"{name} = {value}" for name, value in {**SMALL, "out_channels": 6}.items())
    (tmp_path / "own.toml").write_text(
        '[encoder]\nlike = "fast-ode-cifar10"\ntitle = "encoder"\npage = "https://example.org"\n'
        f'file = "{file.name}"\nsize_mb = 1\nrename = {{ "encoder." = "" }}\n[encoder.network.config]\n{changes}\n'
    )
    ours = open_converted(fetch(card_named(str(tmp_path / "own.toml")), tmp_path / "home", checkpoint=file)).network
    assert_same(ours, official)
