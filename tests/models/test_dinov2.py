"""DINOv2's network against another implementation of it, and its positions against their definition."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from fastsample.models.networks import dinov2
from fastsample.models.networks.dinov2 import DinoV2


def theirs(network, gated, folder):
    """The same weights in the network of transformers, by the names of published files."""
    width, heads, depth = len(network.norm.weight), network.blocks[0].attn.heads, len(network.blocks)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, image_size=28, patch_size=14,
        use_swiglu_ffn=gated, layer_norm_eps=1e-6, hidden_act="gelu",
    )  # fmt: skip
    own = network.state_dict()
    named = {
        "embeddings.cls_token": own["cls_token"], "embeddings.mask_token": own["mask_token"],
        "embeddings.position_embeddings": own["pos_embed"], "layernorm.weight": own["norm.weight"],
        "layernorm.bias": own["norm.bias"],
    }  # fmt: skip
    for kind in ("weight", "bias"):
        named[f"embeddings.patch_embeddings.projection.{kind}"] = own[f"patch_embed.proj.{kind}"]
        for index in range(depth):
            block, layer = f"blocks.{index}", f"encoder.layer.{index}"
            for name, part in zip(("query", "key", "value"), own[f"{block}.attn.qkv.{kind}"].chunk(3), strict=True):
                named[f"{layer}.attention.attention.{name}.{kind}"] = part
            named[f"{layer}.attention.output.dense.{kind}"] = own[f"{block}.attn.proj.{kind}"]
            for one in ("norm1", "norm2"):
                named[f"{layer}.{one}.{kind}"] = own[f"{block}.{one}.{kind}"]
            renamed = {"w12": "weights_in", "w3": "weights_out"} if gated else {"fc1": "fc1", "fc2": "fc2"}
            for mine, its in renamed.items():
                named[f"{layer}.mlp.{its}.{kind}"] = own[f"{block}.mlp.{mine}.{kind}"]
    for index in range(depth):
        for number in (1, 2):
            named[f"encoder.layer.{index}.layer_scale{number}.lambda1"] = own[f"blocks.{index}.ls{number}.gamma"]
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, folder / "model.safetensors")
    config.save_pretrained(folder)
    other, told = Dinov2Model.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    return other.eval()


@pytest.mark.parametrize("gated", [False, True])
def test_the_network_is_that_of_transformers(gated, monkeypatch, tmp_path):
    monkeypatch.setattr(dinov2, "_GRID", 2)
    torch.manual_seed(0)
    network = DinoV2(32, 2, 4, gated).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        wanted = theirs(network, gated, tmp_path)(images).pooler_output
        torch.testing.assert_close(network(images), wanted, rtol=1e-5, atol=1e-5)


def test_positions_between_grids_are_those_of_the_original():
    """Bicubic with a = -0.75 at (i + 1/2) 37 / 16.1 - 1/2, the edge repeated."""
    network = DinoV2(8, 0, 2)
    torch.nn.init.normal_(network.pos_embed)
    grid = network.pos_embed.detach()[0, 1:].double().reshape(37, 37, 8).numpy()
    weights = np.zeros((16, 37))
    for row in range(16):
        x = (row + 0.5) * 37 / 16.1 - 0.5
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d = abs(x - tap)
            inner, outer = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[row, min(max(tap, 0), 36)] += inner if d <= 1 else outer
    wanted = np.einsum("ij,kl,jlc->ikc", weights, weights, grid).reshape(256, 8)
    found = network._positions(16, 16).detach()[0]
    np.testing.assert_allclose(found[1:], wanted, atol=1e-5)
    assert found[0].equal(network.pos_embed.detach()[0, 0])
    assert network._positions(37, 37) is network.pos_embed
