"""Properties of the networks that no golden shows."""

import pytest
import torch

from fastsample.models.networks.diffusers_unet import current_names
from fastsample.models.networks.registry import build_network
from fastsample.models.networks.song_unet import SongUNet

DIFFUSERS = {
    "in_channels": 3, "out_channels": 3, "layers_per_block": 1, "sample_size": 16, "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip


def test_weights_of_diffusers_are_read_under_their_old_names():
    own = build_network("UNet2DModel", DIFFUSERS).state_dict()
    old = {}
    for key, value in own.items():
        for new, earlier in {"q": "query", "k": "key", "v": "value", "out.0": "proj_attn"}.items():
            key = key.replace(f".to_{new}.", f".{earlier}.")
        old[key] = value
    assert len({*old} - {*own}) == 32
    read_back = current_names(old)
    assert set(read_back) == set(own)
    assert all(torch.equal(read_back[key], value) for key, value in own.items())
    assert {*current_names({"conv_extra.key.bias": torch.zeros(1)})} == {"conv_extra.key.bias"}


def test_class_tokens_are_the_context_of_the_network_inside():
    config = {
        "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1], "num_res_blocks": 1,
        "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True, "context_dim": 8, "num_tokens": 5,
    }  # fmt: skip
    network = build_network("ClassTokenUNet", config).eval()
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([4, 0])
    tokens = network.embedding.weight[y][:, None]
    with torch.no_grad():
        assert torch.equal(network(x, t, y), network.unet(x, t, context=tokens))


def test_the_velocity_of_rfpp_is_finite_at_pure_noise():
    config = {"img_resolution": 8, "in_channels": 3, "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    network = build_network("EDMPrecondVel", config | {"out_channels": 3, "unet_type": "songunet"})
    assert network(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 0.5])).isfinite().all()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("ResNet", {}, "unknown network 'ResNet'; known: SongUNet"),
        ("SongUNet", {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "width": 1}, "width = 1 is not known"),
        ("SongUNet", {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "embedding_type": "cubic"}, "'cubic'"),
        ("UNetModelWrapper", {"dim": [3, 32, 32]}, "num_channels"),
        ("EDMPrecond", {"img_resolution": 8, "img_channels": 3, "model_type": "VGG"}, "unknown network 'VGG'"),
        ("NCSNpp", {"model": {"resblock_type": "ddpm"}, "image_size": 8, "centered": True}, "resblock_type = 'ddpm'"),
        ("NCSNpp", {"model": {"progressive": "residual"}, "image_size": 8, "centered": True}, "'residual'"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, config)


UNET = {"in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1], "num_res_blocks": 1}
WRAPPED = {"num_channels": 32, "num_res_blocks": 1}
PIXELS = {"img_resolution": 8, "in_channels": 3, "model_channels": 16}
STAGE = {"embed_dim": 4, "ddconfig": {"z_channels": 4, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32,
                                      "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []}}  # fmt: skip


def stage(**more):
    return STAGE | {"ddconfig": STAGE["ddconfig"] | more}


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("UNetModel", UNET | {"dims": 3}, "dims = 3"),
        ("UNetModel", UNET | {"use_spatial_transformer": True}, "use_spatial_transformer = True"),
        ("UNetModel", UNET | {"context_dim": 8}, "context_dim = 8"),
        ("UNetModel", UNET | {"n_embed": 8}, "n_embed = 8"),
        ("EncoderUNetModel", UNET | {"image_size": 8}, "pool = 'adaptive'"),
        ("UNetModelWrapper", WRAPPED | {"dim": [3, 32, 16]}, r"dim = \[3, 32, 16\]"),
        ("UNetModelWrapper", WRAPPED | {"dim": [3, 9, 9]}, r"dim = \[3, 9, 9\]"),
        ("UNetModelWrapper", WRAPPED | {"dim": [3, 32, 32], "dims": 1}, "dims = 1"),
        ("EDMPrecondVel", PIXELS | {"out_channels": 6}, "out_channels = 6"),
        ("EDMPrecondVel", PIXELS | {"unet_type": "dit"}, "unet_type = 'dit'"),
        ("Model", {"image_size": 8, "model": {"type": "bayesian"}}, "type = 'bayesian'"),
        ("Model", {"image_size": 8, "data": {"image_size": 16}, "model": {}}, "image_size = 8 and data.image_size = 1"),
        ("Model", {"image_size": 8, "data": {"logit_transform": True}, "model": {}}, "logit_transform = True"),
        ("Model", {"image_size": 8, "colour": "red", "model": {}}, "colour = 'red'"),
        ("Model", {"image_size": 8, "diffusion": {"beta_end": 0.05}, "model": {}}, "beta_end = 0.05"),
        ("Model", {"image_size": 8, "diffusion": {"beta_x": 1}, "model": {}}, "beta_x = 1"),
        ("NCSNpp", {"image_size": 8, "centered": True, "model": {"beta_max": 25}}, "beta_max = 25"),
        ("NCSNpp", {"image_size": 8, "centered": True, "model": {"name": "ddpm"}}, "name = 'ddpm'"),
        ("NCSNpp", {"image_size": 8, "model": {}}, "'centered' is missing"),
        ("NCSNpp", {"data": {"image_size": 8, "centered": True, "flip": 1}, "model": {}}, "flip = 1"),
        ("DDPM", {"image_size": 8, "centered": True, "model": {"name": "ncsnpp"}}, "name = 'ncsnpp'"),
        ("AutoencoderKL", stage(double_z=False), "double_z = False"),
        ("AutoencoderKL", stage(attn_type="linear"), "attn_type = 'linear'"),
        ("AutoencoderKL", stage(tanh_out=True), "tanh_out = True"),
        ("AutoencoderKL", STAGE | {"colorize_nlabels": 3}, "colorize_nlabels = 3"),
        ("VQModelInterface", stage(double_z=True) | {"n_embed": 8}, "double_z = True"),
        ("DiT", {"qk_norm": True}, "qk_norm = True"),
    ],
)
def test_no_key_of_a_configuration_is_passed_over(name, config, told):
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        build_network(name, config)


def test_keys_that_decide_nothing_are_passed_over():
    more = {"image_size": 8, "dims": 2, "legacy": True, "use_fp16": True, "use_spatial_transformer": False}
    with torch.device("meta"):
        assert repr(build_network("UNetModel", UNET | more)) == repr(build_network("UNetModel", UNET))
        plain = stage(double_z=True, attn_type="vanilla") | {"monitor": "val/rec_loss", "lossconfig": {"target": "x"}}
        assert repr(build_network("AutoencoderKL", plain)) == repr(build_network("AutoencoderKL", STAGE))


def test_labels_must_fit_the_network():
    config = {"in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1]}
    x, t, y = torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="takes no class labels"):
        build_network("UNetModel", config | {"attention_resolutions": []})(x, t, y)
    with pytest.raises(ValueError, match="needs class labels"):
        build_network("UNetModel", config | {"attention_resolutions": [], "num_classes": 2})(x, t)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_gradients_reach_every_parameter(taps):
    network = SongUNet(8, 3, 3, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,), dropout=0,
                       resample_filter=taps, encoder_type="residual")  # fmt: skip
    torch.manual_seed(0)
    for p in network.parameters():
        p.data.normal_()
    network(torch.randn(2, 3, 8, 8), torch.tensor([0.3, 40.0])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    silent = [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert silent == []
