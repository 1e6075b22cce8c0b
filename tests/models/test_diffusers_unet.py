"""Configurations of diffusers' UNet2DModel: each key gives the output of diffusers, or is refused by its name."""

import json

import pytest
import torch
from diffusers import UNet2DModel

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.card_tables import Network
from fastsample.models.public.cards import card_named
from fastsample.models.public.conversion import open_converted
from fastsample.models.public.fetch import fetch

SMALL = {
    "block_out_channels": (32, 64), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 8, "sample_size": 8,
}  # fmt: skip


def saved(folder, **options):
    """A random network of diffusers with no weight zero, written by it, and the card of its file."""
    torch.manual_seed(0)
    network = UNet2DModel(**SMALL | options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    facts = {"network": Network(name="UNet2DModel", config=config), "urls": (), "page": "https://example.org"}
    return network, card_named("hf-ddpm-cifar10").model_copy(update=facts)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_eps": 0.1},
        {"norm_num_groups": 16, "act_fn": "gelu"},
        {"act_fn": "mish"},
        {"act_fn": "relu"},
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
        {"attention_head_dim": None},
        {"attention_head_dim": 24},
        {"add_attention": False},
        {"attn_norm_num_groups": 4},
        {"resnet_time_scale_shift": "scale_shift"},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
        {"downsample_padding": 0},
        {"mid_block_scale_factor": 1.7},
        {"mid_block_type": None},
        {"center_input_sample": True},
        {"time_embedding_dim": 48},
        {"layers_per_block": 1},
        {"layers_per_block": 3, "block_out_channels": (64, 32)},
        {"up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
        {"num_class_embeds": 5},
        {"dropout": 0.5, "sample_size": None, "num_train_timesteps": 1000},
    ],
    ids=str,
)
def test_each_option_gives_the_output_of_diffusers(options, tmp_path):
    theirs, card = saved(tmp_path, **options)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    ours = open_converted(fetch(card, tmp_path / "home", checkpoint=file)).network
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 999.0])
    classes = (torch.tensor([4, 0]),) if "num_class_embeds" in options else ()
    with torch.no_grad():
        expected = theirs(x, t, *classes).sample
        torch.testing.assert_close(ours(x, t, *classes), expected, rtol=0, atol=2e-5 * float(expected.std()))


@pytest.mark.parametrize(
    "options",
    [
        {"downsample_type": "resnet"},
        {"upsample_type": "resnet"},
        {"time_embedding_type": "fourier"},
        {"class_embed_type": "timestep"},
        {"class_embed_type": "identity"},
        {"resnet_time_scale_shift": "spatial"},
        {"down_block_types": ["DownBlock2D", "ResnetDownsampleBlock2D"]},
        {"up_block_types": ["SkipUpBlock2D", "UpBlock2D"]},
        {"mid_block_type": "UNetMidBlock2DCrossAttn"},
        {"act_fn": "tanh"},
        {"downsample_padding": 2},
        {"_class_name": "UNet2DConditionModel"},
        {"cross_attention_dim": 8},
    ],
    ids=str,
)
def test_what_is_not_known_here_is_refused_by_its_name_and_value(options, tmp_path):
    _, card = saved(tmp_path)
    (name, value), network = *options.items(), card.network
    card = card.model_copy(update={"network": Network(name=network.name, config={**network.config, **options})})
    with pytest.raises(CheckpointError) as refused:
        fetch(card, tmp_path / "home", checkpoint=tmp_path / "diffusion_pytorch_model.safetensors")
    assert name in str(refused.value)
    assert str(value[-1] if name == "down_block_types" else value[0] if isinstance(value, list) else value) in str(
        refused.value
    )


def test_a_card_writes_null_as_a_text():
    network = Network(name="UNet2DModel", config={"attention_head_dim": "null", "sample_size": ["null", 8]})
    assert network.config == {"attention_head_dim": None, "sample_size": [None, 8]}
    assert card_named("hf-ddpm-church").network.config["attention_head_dim"] is None


def test_labels_go_with_a_network_that_takes_them(tmp_path):
    _, card = saved(tmp_path, num_class_embeds=5)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    network = open_converted(fetch(card, tmp_path / "home", checkpoint=file)).network
    with pytest.raises(ValueError, match="num_class_embeds"):
        network(torch.zeros(1, 3, 8, 8), torch.zeros(1))
