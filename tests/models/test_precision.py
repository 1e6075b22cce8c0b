"""Networks in half precision: weights that are cast once, and no other numbers than those of autocast."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastsample.models.networks.registry import build_network
from fastsample.models.precision import computing, half_dtype, halved

from .conftest import UNET
from .test_architectures import FILES, RUN, network_of, read
from .test_networks import DIFFUSERS

CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Keeps what casts take that is a weight, or has the shape of one."""

    def __init__(self, network):
        super().__init__()
        self.weights = {weight.data_ptr() for weight in network.parameters()}
        self.shapes = {weight.shape for weight in network.parameters() if weight.ndim > 1}
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and (
            args[0].data_ptr() in self.weights or args[0].shape in self.shapes
        ):
            self.found.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def called(network, precision, call):
    """(what `call` returns of a network in a precision, the shapes of the weights that were cast)."""
    with torch.no_grad(), computing(precision, CPU), Casts(network) as casts:
        return call(network), casts.found


def assert_cast_once(network, call):
    """In bfloat16 as under autocast, without its casts, and near the network in float32."""
    network.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole, _ = called(network, "float32", call)
    expected, casts = called(network, "bf16", call)
    half = halved(network, torch.bfloat16)
    found, left = called(half, "bf16", call)
    assert casts
    assert left == []
    if type(network).__name__ == "EDM2Precond":  # its gains act after the products, and not on the weights
        assert psnr(found, whole) > psnr(expected, whole) - 1
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert psnr(found, whole) > 30
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def psnr(a, b):
    return 10 * math.log10(float(b.std() ** 2 / (a.double() - b).square().mean()))


SAMPLED = {read(file)["class"]: name for name, file in FILES.items()}  # one of each class
WRAPPED = {read(file)["wrapper"]["class"]: name for name, file in FILES.items() if read(file).get("wrapper")}
STAGES = {"AutoencoderKL", "VQModelInterface"}  # decode in float32


@pytest.mark.parametrize("family", sorted({*SAMPLED, *WRAPPED} - STAGES))
def test_weights_of_a_family_are_cast_once(family):
    golden = read(FILES[WRAPPED.get(family) or SAMPLED[family]])
    network, name, _ = network_of(golden)
    assert_cast_once(network, lambda made: next(iter(RUN[name](made, golden["cases"][0], golden).values())))


PIXELS = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "width": 32}
TOKENS = {
    "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1], "num_res_blocks": 1,
    "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True, "context_dim": 8, "num_tokens": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config", "labels"),
    [
        ("UNet2DModel", DIFFUSERS, []),
        ("ClassTokenUNet", TOKENS, [torch.tensor([4, 0])]),
        ("ResidualMLP", PIXELS | {"blocks": 2}, []),
        ("MLP", {"channels": 3, "out_channels": 3, "width": 32, "layers": 2}, []),
        ("Velocity", {"network": "SongUNet", "network_args": UNET, "path": "edm", "prediction": "edm-F"}, []),
    ],
)
def test_weights_of_networks_without_an_original_are_cast_once(name, config, labels):
    torch.manual_seed(0)
    network = build_network(name, config)
    for weight in network.parameters():
        if weight.ndim > 1:  # the last layers start at zero
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    x, t = torch.randn(2, 3) if name == "MLP" else torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.7])
    assert_cast_once(network, lambda made: made(x, t, *labels))


def test_norms_embeddings_and_positions_stay_and_are_shared():
    network, _, _ = network_of(read(FILES["dit_a"]))
    half = halved(network, torch.float16)
    assert half.pos_embed is network.pos_embed
    assert half.y_embedder.embedding_table.weight is network.y_embedder.embedding_table.weight
    assert half.blocks[0].attn.qkv.weight.dtype == half.blocks[0].attn.qkv.bias.dtype == torch.float16
    network, _, _ = network_of(read(FILES["sde_ncsnpp_ve_cont"]))
    half = halved(network, torch.float16)
    kept = {
        type(module).__name__ for module in half.modules() for p in module.parameters(False) if p.dtype.itemsize > 2
    }
    assert kept == {"GroupNorm", "_Fourier"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_call_in_half_precision_leaves_the_settings_of_the_process(precision):
    with computing(precision, CPU):
        assert torch.get_autocast_dtype("cpu") == half_dtype(precision)
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
