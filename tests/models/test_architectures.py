"""Every network architecture against outputs of its original class, and the key hashes of the published checkpoints.

The goldens are in tests/data/networks; FASTSAMPLE_ARCH_GOLDEN=dir reads another folder of such files
(plain or gzipped).
"""

import gzip
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastsample.models.networks.registry import build_network, network_names

from ..hash_rule import hashed, hashed_weight

FOLDER = Path(os.environ.get("FASTSAMPLE_ARCH_GOLDEN", Path(__file__).parents[1] / "data" / "networks"))


def read(path):
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


FILES = {path.name.split(".")[0].removeprefix("arch_"): path for path in sorted(FOLDER.glob("arch_*.json*"))}
MANIFEST = read(FILES.pop("manifest"))["models"] if "manifest" in FILES else {}


def given(spec, shift=0.0):
    return hashed(spec["name"], spec["shape"], spec["scale"]) + shift


def network_of(golden):
    """The golden's network with the weights of its rule, and its class."""
    name, config = golden["class"], golden["config"]
    if golden["wrapper"]:
        name, config = golden["wrapper"]["class"], {**golden["wrapper"]["config"], **config, "model_type": name}
        config |= {key: float(config[key]) for key in ("sigma_min", "sigma_max") if key in config}
    network = build_network(name, config).eval()
    built = network.state_dict()
    network.load_state_dict(
        {key: v if key in golden["constructed"] else hashed_weight(key, tuple(v.shape)) for key, v in built.items()}
    )
    return network, name, built


def labels_of(case, golden):
    """One-hot rows of the EDM families, or None."""
    width = (golden["wrapper"] or golden)["config"].get("label_dim", golden["config"].get("label_dim"))
    if case.get("class_zero"):
        return torch.zeros(case["x"]["shape"][0], width)
    return torch.eye(width)[case["class_index"]] if "class_index" in case else None


# One function per family: (network, case, golden) -> outputs by name.


def run_edm(network, case, golden):
    x, seen = given(case["x"]), {}
    width = golden["config"].get("augment_dim", 0)
    augment = hashed("augment_labels", (len(x), width)) if case.get("augment") else None
    time = torch.tensor(next(case[key] for key in ("noise_labels", "sigma", "t") if key in case))

    def keep(_, inputs, output):
        seen.update(c_in_x=inputs[0], c_noise=inputs[1], F=output)

    if not golden["wrapper"]:
        out = network(x, time, labels_of(case, golden), augment)
        return {"F": out, "v": out}
    network.model.register_forward_hook(keep)
    out = network(x, time, labels_of(case, golden), augment)
    if "round_sigma" in case:
        np.testing.assert_allclose(network.round_sigma(time), case["round_sigma"], rtol=1e-5)
    return {"D": out, "v": out, **seen}


def run_edm2(network, case, golden):
    sigma = torch.tensor(case["sigma"])
    out = network(given(case["x"]), sigma, labels_of(case, golden))
    return {"D": out, "logvar": network.logvar(sigma).reshape(-1, 1, 1, 1)}


def run_adm(network, case, golden):
    y = torch.tensor(case["y"]) if "y" in case else None
    context = given(case["context"]) if "context" in case else None
    out = network(given(case["x"]), torch.tensor(case["timesteps"]), y, context)
    return {"out": out, "eps": out}


def run_classifier(network, case, golden):
    with torch.enable_grad():
        x = given(case["x"]).requires_grad_()
        logits = network(x, torch.tensor(case["timesteps"]))
        chosen = logits.log_softmax(1).gather(1, torch.tensor(case["y"])[:, None])
        return {"logits": logits.detach(), "gradient": torch.autograd.grad(chosen.sum(), x)[0]}


def run_ddpm(network, case, golden):
    return {"eps": network(given(case["x"]), torch.tensor(case["timesteps"]))}


def run_transformer(network, case, golden):
    x, t, y = given(case["x"]), torch.tensor(case["t"]), torch.tensor(case["y"])
    return {"out": network(x, t, y), "with_cfg": network.forward_with_cfg(x, t, y, case["cfg_scale"])}


def run_score_sde(network, case, golden):
    x = given(case["x"], case.get("shift", 0.0))
    if "time_cond" in case:
        times = torch.tensor(case["time_cond"])
        return {"raw": network(x, times.long() if case.get("time_long") else times)}
    model, training, t = golden["config"]["model"], golden["config"]["training"], torch.tensor(case["t"])
    n = model["num_scales"]
    log_alpha = -(t**2) * (model["beta_max"] - model["beta_min"]) / 4 - t * model["beta_min"] / 2
    if training["sde"] == "vesde":
        std = model["sigma_min"] * (model["sigma_max"] / model["sigma_min"]) ** t
        labels = std if training["continuous"] else ((1 - t) * (n - 1)).round().long()
        scale = 1.0
    elif training["sde"] == "subvpsde" or training["continuous"]:
        labels = 999 * t
        var = 1 - (2 * log_alpha).exp()
        scale = -1 / (var if training["sde"] == "subvpsde" else var.sqrt())
    else:
        labels = t * (n - 1)
        alphas = (1 - torch.linspace(model["beta_min"] / n, model["beta_max"] / n, n)).cumprod(0)
        scale = -1 / (1 - alphas[labels.long()]).sqrt()
    np.testing.assert_allclose(labels, case["labels_seen"], rtol=1e-5)
    return {"score": network(x, labels) * torch.as_tensor(scale).reshape(-1, 1, 1, 1)}


def run_first_stage(network, case, golden):
    z, image = given(case["z"]), given(case["img"])
    if golden["class"] == "AutoencoderKL":
        mean, logvar = network.encode(image)
        return {"decode_z": network.decode(z), "encode_mean": mean, "encode_logvar": logvar}
    return {
        "decode_z": network.decode(z),
        "decode_z_force_not_quantize": network.decode(z, quantize=False),
        "encode_prequant": network.encode(image),
        "quantized_z": network.quantized(z),
        "code_indices": network.codes(z).flatten(),
    }


RUN = {
    **dict.fromkeys(["SongUNet", "DhariwalUNet", "EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"], run_edm),
    "EDMPrecondVel": run_edm,
    "Precond": run_edm2,
    "UNetModel": run_adm,
    "UNetModelWrapper": run_adm,
    "EncoderUNetModel": run_classifier,
    "Model": run_ddpm,
    "DiT": run_transformer,
    "SiT": run_transformer,
    "NCSNpp": run_score_sde,
    "DDPM": run_score_sde,
    "AutoencoderKL": run_first_stage,
    "VQModelInterface": run_first_stage,
}


def told_values(value, told):
    """(ours, theirs) for the values that a golden tells."""
    flat, theirs = value.double().flatten(), (told["first"], told["strided"])
    ours = (flat[: len(theirs[0])], flat[:: told["stride"]][: len(theirs[1])])
    return torch.cat(ours).numpy(), np.concatenate(theirs)


def test_the_weight_rule_gives_its_published_values():
    np.testing.assert_allclose(hashed("x", (4,)), [-0.499313537, -0.135278197, 0.154414571, -0.548988150], atol=1e-7)


@pytest.fixture
def attended(monkeypatch):
    """The strides of what attention is computed of."""
    found, own = [], F.scaled_dot_product_attention

    def record(*given):
        found.extend(tensor.stride() for tensor in given)
        return own(*given)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return found


@pytest.mark.parametrize("name", FILES)
def test_outputs_equal_those_of_the_original_network(name, attended):
    golden = read(FILES[name])
    network, cls, built = network_of(golden)
    assert {key: list(value.shape) for key, value in built.items()} == golden["state_dict"]
    for key, told in golden["constructed"].items():
        flat = built[key].flatten()
        assert str(flat.dtype).removeprefix("torch.") == told["dtype"]
        np.testing.assert_allclose(flat[:8], told["first"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(flat[-4:], told["last"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(flat.double().sum(), told["sum"], rtol=1e-5)
    if "num_ema_tensors" in golden:  # The averaged weights of these checkpoints are a list without names.
        averaged = [key for key, p in network.named_parameters() if p.requires_grad]
        assert len(averaged) == golden["num_ema_tensors"]
        assert averaged[:4] == golden["ema_order_first"]
        assert averaged[-4:] == golden["ema_order_last"]
    for key, told in golden.get("wrapper_attrs", {}).items():
        # The original subtracts 1 from an exponential in float32, which costs the smallest VP level 2 %.
        np.testing.assert_allclose(getattr(network, key), float(told), rtol=3e-2 if cls == "VPPrecond" else 1e-5)
    for case in golden["cases"]:
        with torch.no_grad():
            outputs = RUN[cls](network, case, golden)
        for output, told in case["outputs"].items():
            value, std = outputs[output].double(), told["std"]
            assert list(value.shape) == told["shape"]
            ours, theirs = told_values(value, told)
            if output in ("code_indices", "quantized_z"):
                assert (np.abs(ours - theirs) > 1e-6 * std).mean() <= 0.01
                continue
            limit = 2e-4
            if cls == "VPPrecond" and case["name"] == "sigma_small":
                # The original computes log(1 + sigma^2) in float32, which costs the label 1 %.
                limit = {"F": 1e-2, "c_noise": 3e-2}.get(output, limit)
            error = np.abs(ours - theirs).max() / std
            assert error <= limit, (case["name"], output)
            moments = abs(value.mean() - told["mean"]), abs(value.std(correction=0) - std)
            assert max(moments) <= limit / 2 * std, (case["name"], output)
    assert {strides[-1] for strides in attended} == {1}  # else no fused kernel takes them


# Full size: the published configurations, which say no class; it follows from their form.


def class_of(config, keys):
    """(class, configuration) of a manifest entry."""
    if "wrapper" in config:
        return config["wrapper"], {key: value for key, value in config.items() if key != "wrapper"}
    if "unet_type" in config:
        if keys[0].startswith("model."):
            return "EDMPrecondVel", config
        rest = {key: value for key, value in config.items() if key != "unet_type"}
        return {"songunet": "SongUNet", "adm": "DhariwalUNet"}[config["unet_type"]], rest
    if "target" in config:
        return config["target"].rsplit(".", 1)[-1], config
    if "model" in config:
        kind = config["model"].get("type") or config["model"]["name"]
        return {"simple": "Model", "ncsnpp": "NCSNpp", "ddpm": "DDPM"}[kind], config
    for key, name in (
        ("dim", "UNetModelWrapper"),
        ("block_out_channels", "UNet2DModel"),
        ("input_size", "DiT"),
        ("num_res_blocks", "UNetModel"),
        ("img_channels", "Precond"),
    ):
        if key in config:
            return name, config
    raise AssertionError(f"no class for {config}")


def prefix_of(key):
    """What a checkpoint file puts before the names of its network."""
    return next((p for p in ("module.", "model.diffusion_model.", "first_stage_model.") if key.startswith(p)), "")


@pytest.mark.parametrize("name", MANIFEST)
def test_published_configurations_have_the_published_keys_and_shapes(name):
    told = MANIFEST[name]
    cls, config = class_of(told["config"], told["first"])
    with torch.device("meta"):
        network = build_network(cls, config)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    prefix = prefix_of(told["first"][0])
    lines = sorted(f"{prefix}{key}\t{'x'.join(map(str, shape)) or 'scalar'}" for key, shape in shapes.items())
    assert len(lines) == told["n_tensors"]
    assert sum(map(math.prod, shapes.values())) == told["n_elements"]
    assert hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest() == told["sha256_sorted"]
    if "n_ema_tensors" in told:
        averaged = [p for p in network.parameters() if p.requires_grad]
        assert (len(averaged), sum(p.numel() for p in averaged)) == (told["n_ema_tensors"], told["n_ema_elements"])


SMALL = [name for name, told in MANIFEST.items() if told["n_elements"] <= 300e6]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_one_forward_at_the_published_size(name):
    cls, config = class_of(MANIFEST[name]["config"], MANIFEST[name]["first"])
    network = build_network(cls, config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if "ddconfig" in config:
            side = config["ddconfig"]["resolution"]
            x = torch.randn(1, 3, side, side, generator=generator)
            latent = network.encode(x)
            out = network.decode(latent[0] if isinstance(latent, tuple) else latent)
        else:
            channels = config.get("img_channels", config.get("in_channels", 3))
            sizes = (config[key] for key in ("img_resolution", "image_size", "sample_size") if key in config)
            size = config["dim"][-1] if "dim" in config else next(sizes, 32 if "cifar" in name else 64)
            x = torch.randn(1, channels, size, size, generator=generator)
            labels = (torch.tensor([1]),) if cls == "UNetModel" and config.get("num_classes") else ()
            out = network(x, torch.tensor([0.5]), *labels)
    assert out.shape[2:] == x.shape[2:]
    assert out.isfinite().all()
    assert out.std() > 0


def test_every_network_of_the_registry_is_compared():
    through_others = {"UNet2DModel": "Model", "ClassTokenUNet": "UNetModel"}
    # Without a published original: what they compute is tested in test_velocity, test_small_runs and test_cifar_resnet.
    own = {"Velocity", "MLP", "ResidualMLP", "ConvClassifier", "CifarResNet"}
    assert set(network_names()) == {*RUN, *through_others, *own}
