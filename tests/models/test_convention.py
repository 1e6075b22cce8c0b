"""One convention, however it is written: recipes, checkpoints, cards and `Velocity` compare with each other."""

import torch

from fastsample.models.checkpoints import load_model
from fastsample.models.convention import Convention
from fastsample.models.networks.registry import build_network
from fastsample.models.path import DiscreteVP, VPLinear, path_named
from fastsample.models.public.cards import card_named
from fastsample.models.training.recipe import changed, read_recipe


def test_a_recipe_has_the_convention_of_the_checkpoint_it_makes():
    for name in ("cifar10-tiny-vp", "cifar10-tiny-flow"):
        _, metadata, _ = load_model(name)
        assert read_recipe(name).convention == metadata.convention
    recipe = changed(read_recipe(name), {"time_shift": 0.5})
    assert recipe.convention != metadata.convention
    assert recipe.convention.differences(metadata.convention) == ["time_shift is 0.0 there and 0.5 here"]


def test_a_velocity_has_the_convention_of_the_public_network_it_wraps():
    args = read_recipe("rfpp-cifar10").network_args
    assert Convention.read(args) == build_network("Velocity", args).convention == Convention(path_named("edm"), "edm-F")
    ddpm = {**args, "path": "vp-discrete", "prediction": "eps", "time_scale": 1000.0, "time_shift": -1.0}
    assert Convention.read(ddpm) == card_named("ddpm-cifar10").convention


def test_what_is_its_own_is_told():
    own = Convention(DiscreteVP(betas=(0.1, 0.2)), "eps", plain=False)
    assert Convention(VPLinear(), "eps").differences(own) == [
        "path is a vp-discrete of its own there and vp-linear here",
        "prediction is eps in a form of its own there and eps here",
    ]


def test_labels_are_those_of_floats_and_tensors():
    convention = Convention(VPLinear(), "eps", 1000.0, -1.0)
    assert convention.label(0.5) == 499.0
    torch.testing.assert_close(convention.label(torch.tensor([0.5])), torch.tensor([499.0]))
