"""`models test` names the convention of a network that is stated wrongly, whatever the network is."""

import math
from dataclasses import replace

import pytest
import torch

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import load_model
from fastsample.models.foreign.conventions import fitting
from fastsample.models.foreign.own import OwnConvention, OwnDenoiser
from fastsample.models.path import LinearFlow, VPLinear

ROOM = 1e-3


class Asked(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, t):
        return self.function(x, float(t[0]))


def embedded(name):
    network, facts, _ = load_model(name)
    scale = facts.convention.time_scale
    stated = OwnConvention(path=facts.convention.path, prediction=facts.convention.prediction)
    return facts.image_shape, stated, lambda x, t: network(x, torch.full((len(x),), scale * t))


def exact(mixture, prediction):
    return (
        mixture.shape,
        OwnConvention(path=mixture.path, prediction=prediction),
        lambda x, t: mixture.predict(x, t, prediction),
    )


NETWORKS = {
    "flow of the package": lambda: embedded("cifar10-tiny-flow"),
    "vp of the package": lambda: embedded("cifar10-tiny-vp"),
    "mixture of images": lambda: exact(image_mixture(VPLinear()), "v"),
    "ring on a flow": lambda: exact(ring_mixture(LinearFlow()), "velocity"),
    "ring on vp": lambda: exact(ring_mixture(VPLinear()), "eps"),
}


def time_of_sigma(path, sigma):
    if path.name == "flow":
        return 1 - sigma
    return path.t_of_nsr(sigma / math.sqrt(max(1 - sigma * sigma, 1e-12)))


def wrong(stated, f):
    """(what is stated, the network, what is right) of each way to be wrong."""
    path = stated.path
    other = replace(stated, prediction="v" if stated.prediction == "eps" else "eps")
    yield other, f, stated
    yield stated, lambda x, t: -f(x, t), replace(stated, sign=-1)
    yield stated, lambda x, t: f(x, 1 - t), replace(stated, time_scale=-1.0, time_shift=1.0)
    yield stated, lambda x, t: f(x, t / 1000), replace(stated, time_scale=1000.0)
    reversed_time = dict(time_scale=-1.0, time_shift=1.0) if path.name == "flow" else dict(time="sigma")
    yield stated, lambda x, s: f(x, time_of_sigma(path, s)), replace(stated, **reversed_time)
    yield stated, lambda x, t: f(2 * x, t), replace(stated, divided_by=2.0)


WAYS = ("eps as v", "sign", "reversed", "thousand", "sigma", "scaled")
SLOW = pytest.mark.slow  # of tens of seconds
CASES = [
    pytest.param(
        name, way, marks=[SLOW] if name.endswith("package") and (name[0] == "v" or way not in WAYS[:1]) else []
    )
    for name in NETWORKS
    for way in WAYS
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_the_right_convention_is_named(name, way, request):
    shape, convention, f = NETWORKS[name]()
    stated, network, right = list(wrong(convention, f))[WAYS.index(way)]
    own, best = fitting(OwnDenoiser(Asked(network), stated), shape)
    assert not own.holds
    assert best.holds
    assert str(best.convention) == str(right)


@pytest.mark.parametrize("name", ["mixture of images", "ring on a flow", "ring on vp"])
def test_what_is_stated_rightly_is_left(name):
    shape, convention, f = NETWORKS[name]()
    own, best = fitting(OwnDenoiser(Asked(f), convention), shape)
    assert own.holds
    assert best is own


def test_the_command_says_it_and_ends_with_1(mine, command):
    mine.write_text(
        mine.read_text("utf-8") + "\ndef stated():\n    return OwnModel(Gaussian(0.25), (2, 64), sign=-1)\n"
    )
    code, out, _ = command("models", "test", "mine.py:stated")
    assert code == 1
    assert "path='flow', prediction='velocity' fits" in out
    code, out, _ = command("models", "test", "mine.py:wave")
    assert code == 0
    assert "as stated" in out


def test_samples_that_depend_on_one_another_are_found(mine, command):
    mine.write_text(
        mine.read_text("utf-8") + "\ndef batch():\n    inner = Gaussian(0.25)\n"
        "    return OwnModel(lambda x, t: inner(x, t) - 0.1 * x.mean(0, keepdim=True), (2, 64))\n"
    )
    code, out, _ = command("models", "test", "mine.py:batch")
    assert code == 1
    assert "WRONG batch" in " ".join(out.split())
