"""`models test` names the convention of a network that is stated wrongly, whatever the network is."""

import math
from dataclasses import replace

import pytest
import torch

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import load_model
from fastsample.models.foreign.conventions import fitting, same
from fastsample.models.foreign.own import OwnConvention, OwnDenoiser
from fastsample.models.path import LinearFlow, VPCosine, VPLinear


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


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[SLOW] if one.endswith("package") else []) for one in NETWORKS]
)
def test_what_is_stated_rightly_is_left(name):
    shape, convention, f = NETWORKS[name]()
    own, best = fitting(OwnDenoiser(Asked(f), convention), shape)
    assert own.holds
    assert best is own


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ring on a flow", {"divided_by": "unit"}),
        ("ring on a flow", {"time": "nsr"}),
        ("ring on vp", {"prediction": "velocity"}),
        ("ring on vp", {"divided_by": "edm"}),
        ("mixture of images", {"path": VPCosine()}),
        ("mixture of images", {"divided_by": 0.5}),
        pytest.param("flow of the package", {"divided_by": "unit"}, marks=SLOW),
        pytest.param("vp of the package", {"divided_by": "edm"}, marks=SLOW),
        pytest.param("vp of the package", {"prediction": "velocity"}, marks=SLOW),
    ],
)
def test_what_is_stated_nearly_rightly_is_not_left(name, changes):
    """Of which samples look well: a reading's own are judged by itself, and another is no better on them."""
    shape, convention, f = NETWORKS[name]()
    own, best = fitting(OwnDenoiser(Asked(f), replace(convention, **changes)), shape)
    assert best is not own
    assert best.holds
    assert best.convention == convention


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_times_that_a_network_does_not_know_do_not_hide_the_right_one(prediction):
    """An x0 that is told one time for all predicts noise well: by noise alone it comes before the right reading."""
    shape, convention, f = exact(ring_mixture(VPLinear()), prediction)
    _, best = fitting(OwnDenoiser(Asked(f), replace(convention, time_scale=1000.0)), shape)
    assert best.convention == convention


def test_two_ways_to_state_one_convention_are_one():
    shape, convention, f = NETWORKS["ring on a flow"]()
    reversed_time = replace(convention, time_scale=-1.0, time_shift=1.0)
    own, best = fitting(OwnDenoiser(Asked(lambda x, s: f(x, 1 - s)), replace(convention, time="sigma")), shape)
    assert own.holds
    assert best is own
    assert same(own.convention) == [reversed_time]
    assert same(reversed_time) == [own.convention]


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
