"""What the adapters of public checkpoints compute: as the original classes, and by the formulas of their families."""

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fastsample.datasets.levels import to_uint8
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named, cards
from fastsample.models.public.model import PublicModel, PublicNetwork, path_of

from ..hash_rule import hashed, hashed_weight

NETWORKS = Path(__file__).parents[1] / "data" / "networks"


def original(name):
    """(golden, its network with the weights of its rule)."""
    told = json.loads(gzip.decompress((NETWORKS / f"arch_{name}.json.gz").read_bytes()))
    cls, config = told["class"], told["config"]
    if told["wrapper"]:
        cls, config = told["wrapper"]["class"], {**told["wrapper"]["config"], **config, "model_type": cls}
        config |= {key: float(config[key]) for key in ("sigma_min", "sigma_max") if key in config}
    network = build_network(cls, config).eval()
    state = network.state_dict()
    fixed = told["constructed"]
    network.load_state_dict({k: v if k in fixed else hashed_weight(k, tuple(v.shape)) for k, v in state.items()})
    return told, network


def adapted(name, network, labels=None, guidance=0.0, classes=0):
    """The denoiser of a network under the conventions of that card."""
    card = card_named(name)
    card = card.model_copy(update={"labels": card.labels.model_copy(update={"classes": classes})})
    model = PublicModel(card, path_of(card), "", "", classes)
    return model.denoiser(PublicNetwork(card, network), labels, guidance, None)


def assert_told(ours, told):
    flat, limit = ours.flatten(), 5e-4 * told["std"]
    assert list(ours.shape) == told["shape"]
    torch.testing.assert_close(flat[: len(told["first"])], torch.tensor(told["first"]), rtol=0, atol=limit)
    strided = flat[:: told["stride"]][: len(told["strided"])]
    torch.testing.assert_close(strided, torch.tensor(told["strided"]), rtol=0, atol=limit)


def each(predict, x, times, *labels):
    """The predictions of the samples of a batch, each at its own time of the path, and with its own label."""
    with torch.no_grad():
        return torch.cat(
            [predict(x[i : i + 1], float(times[i]), *(y[i : i + 1] for y in labels)) for i in range(len(x))]
        )


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("edm_precond_edm_ddpmpp", "edm-cifar10-cond-vp"),
        ("edm_precond_vp_ddpmpp", "edm-baseline-cifar10-vp"),
        ("edm_precond_ve_ncsnpp", "edm-baseline-cifar10-ve"),
        ("edm_precond_iddpm_adm", "edm-baseline-imagenet64"),
        ("edm2_a", "edm2-img64-s"),
    ],
)
def test_denoised_images_of_the_edm_families(name, card):
    told, network = original(name)
    classes = (told["wrapper"] or told)["config"].get("label_dim", told["config"].get("label_dim"))
    for case in (case for case in told["cases"] if not (case.get("class_zero") or case.get("augment"))):
        x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"])
        labels = [torch.tensor(case["class_index"]).expand(len(x))] if "class_index" in case else []

        def x0(one, sigma, label=None):
            denoiser = adapted(card, network, label, classes=classes or 0)
            denoised, eps = denoiser.x0(one, sigma), denoiser.eps(one, sigma)
            torch.testing.assert_close(one - sigma * eps, denoised, rtol=1e-4, atol=1e-4 * (1 + sigma))
            return denoised

        assert_told(each(x0, x, case["sigma"], *labels), case["outputs"]["D"])


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("sde_ddpmpp_vp_cont", "sde-vp-ddpmpp"),
        ("sde_ddpm_vp_disc", "sde-vp-ddpm"),
        ("sde_ncsnpp_ve_cont", "sde-ve-ncsnpp"),
        ("sde_ncsnpp_ve_disc", "sde-ve-ncsnpp-disc"),
    ],
)
def test_scores_of_the_score_sde_families(name, card):
    """score = -eps / sigma, with the original's sigma."""
    told, network = original(name)
    denoiser = adapted(card, network)
    compared = 0
    for case in (case for case in told["cases"] if "score" in case["outputs"]):
        x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]) + case.get("shift", 0.0)
        t, labels = torch.tensor(case["t"], dtype=torch.float64), torch.tensor(case["labels_seen"])
        if card.endswith("disc"):
            times = sigma = network.sigmas[labels.long()]
        elif card == "sde-ve-ncsnpp":
            times = sigma = 0.01 * 5000**t
        elif card == "sde-vp-ddpm":
            kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
            times, sigma = (labels.double() + 1) / 1000, (1 - kept[labels.long()]).sqrt()
        else:
            times, sigma = t, torch.tensor([denoiser.path.sigma(float(one)) for one in t])
        score = -each(denoiser.eps, x, times) / sigma.float().reshape(-1, 1, 1, 1)
        assert_told(score, case["outputs"]["score"])
        compared += 1
    assert compared


def test_discrete_ve_networks_get_whole_noise_levels():
    _, network = original("sde_ncsnpp_ve_disc")
    x = hashed("x", (1, 3, 8, 8))
    between = float((network.sigmas[500].log() + 0.4 * (network.sigmas[501] / network.sigmas[500]).log()).exp())
    with torch.no_grad():
        eps = -network.sigmas[500].float() * network(x, torch.tensor([500]))
        torch.testing.assert_close(adapted("sde-ve-ncsnpp-disc", network).eps(x, between), eps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "card", "key", "sign"),
    [
        ("rf_ddpmpp_cifar", "rf-cifar10-1", "time_cond", 1),
        ("rf_ncsnpp_256", "rf-celebahq256", "time_cond", 1),
        ("torchcfm_a", "torchcfm-cifar10-otcfm", "timesteps", 1),
        ("fastode_songunet", "fast-ode-cifar10", "t", -1),
        ("rfpp_edmprecondvel_ncsnpp", "rfpp-cifar10", "t", -1),
    ],
)
def test_velocities_point_from_noise_to_data(name, card, key, sign):
    """t = 0 is noise; codes with the other direction have 1 - t and the other sign."""
    told, network = original(name)
    denoiser = adapted(card, network)
    scale = card_named(card).time.scale
    for case in told["cases"]:
        x, seen = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]), torch.tensor(case[key]).double()
        (output,) = case["outputs"].values()
        times = seen / scale if sign > 0 else 1 - seen
        assert_told(sign * each(denoiser.velocity, x, times), output)


@pytest.mark.parametrize(
    ("name", "card"),
    [("iddpm_cifar_a", "iddpm-cifar10"), ("adm_gd_cond_neworder", "adm-imagenet64"), ("ddim_a", "ddim-celeba64"),
     ("ldm_unet_uncond_headch", "ldm-celebahq256")],
)  # fmt: skip
def test_noise_of_discrete_models(name, card):
    """At t = (j + 1) / N the network gets index j of the table; its variances are dropped."""
    told, network = original(name)
    case, table = told["cases"][0], card_named(card).path
    x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"])
    labels = torch.tensor(case["y"]) if "y" in case else None
    denoiser = adapted(card, network, labels, classes=told["config"].get("num_classes") or 0)
    index = torch.tensor(400)
    label = (index * (0.25 if table.steps == 4000 else 1.0)).expand(len(x)).float()
    with torch.no_grad():
        eps = network(x, label, *([] if labels is None else [labels]))[:, : x.shape[1]]
        t = (400 + 1) / table.steps
        torch.testing.assert_close(denoiser.eps(x, t), eps, rtol=1e-4, atol=1e-4)
        kept = (1 - torch.tensor(table.betas(), dtype=torch.float64)).cumprod(0)[400]
        x0 = (x - (1 - kept).sqrt() * eps) / kept.sqrt()
        torch.testing.assert_close(denoiser.x0(x, t), x0.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "card"), [("dit_a", "dit-xl2-256"), ("sit_a", "sit-xl2-256")])
def test_guidance_of_transformers_is_the_published_one(name, card):
    told, network = original(name)
    classes = told["config"]["num_classes"]
    y = torch.tensor([1, 2])
    x = hashed("latents", (2, told["config"]["in_channels"], *[told["config"]["input_size"]] * 2))
    denoiser = adapted(card, network, y, 0.5, classes)
    both, t = torch.cat([y, torch.full_like(y, classes)]), 0.4
    time = 1000 * t - 1 if card.startswith("dit") else t
    with torch.no_grad():
        expected = network.forward_with_cfg(torch.cat([x, x]), torch.full((4,), time), both, 1.5)[:2, :4]
        ours = denoiser.eps(x, t) if card.startswith("dit") else denoiser.velocity(x, t)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (denoiser.nfe, denoiser.forwards(t)) == (1, 2)


@pytest.mark.parametrize("name", ["adm-imagenet64", "adm-imagenet256-uncond"])
def test_classifiers_guide_as_published(name):
    """eps - s sigma grad log p(y | x, t), with the gradient of the original class, in inference mode as in bench."""
    _, network = original("adm_gd_cond_neworder" if name == "adm-imagenet64" else "adm_gd_uncond_a")
    told, classifier = original("adm_classifier_a")
    card, scale = card_named(name), 100.0
    both = PublicNetwork(card, network, classifier=classifier.requires_grad_(False))
    model = PublicModel(card, path_of(card), "", "", 10, scale)
    for case in told["cases"]:
        x, y = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]), torch.tensor(case["y"])
        times, change = (torch.tensor(case["timesteps"], dtype=torch.float64) + 1) / 1000, []
        with torch.inference_mode():
            for i, t in enumerate(times.tolist()):
                one, label = x[i : i + 1].clone(), y[i : i + 1].clone()
                guided = model.denoiser(both, label, 0.0, None)
                plain = network(one, torch.tensor([1000 * t - 1]), *([label] if card.labels.classes else []))[:, :3]
                change.append((plain - guided.eps(one, t)) / (scale * model.path.sigma(t)))
                assert (guided.nfe, guided.forwards(t), guided.classifier_calls) == (1, 1, 1)
        assert_told(torch.cat(change), case["outputs"]["gradient"])


def test_one_guidance_excludes_the_other():
    card = card_named("dit-xl2-256")
    model = PublicModel(card, path_of(card), "", "", 1000, 1.0)
    with pytest.raises(CheckpointError, match="exclude each other"):
        model.denoiser(None, torch.tensor([0]), 1.0, None)


def test_the_raw_network_of_edm():
    """consistency_models keeps the preconditioning outside of the network: label 250 ln(sigma)."""

    class Network(nn.Module):
        def forward(self, x, label):
            return 0.1 * x + label.reshape(-1, 1, 1, 1)

    x, sigma = hashed("x", (2, 3, 4, 4)), 3.0
    total = sigma**2 + 0.25
    raw = 0.1 * x / math.sqrt(total) + 250 * math.log(sigma)
    expected = 0.25 / total * x + sigma * 0.5 / math.sqrt(total) * raw
    torch.testing.assert_close(adapted("cm-edm-bedroom", Network()).x0(x, sigma), expected)


def test_only_networks_trained_without_labels_are_guided():
    with pytest.raises(CheckpointError, match="not trained without labels"):
        adapted("edm-cifar10-cond-vp", nn.Identity(), torch.tensor([0]), 1.0, 10)


def test_samples_in_the_unit_interval_become_images():
    x = torch.tensor([[0.0, 0.5, 1.0]])
    decode = PublicNetwork(card_named("sde-ve-ncsnpp"), nn.Identity()).decode
    assert decode(x).tolist() == [[-1.0, 0.0, 1.0]]


def test_latents_are_unscaled_before_they_are_decoded():
    class FirstStage(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def decode(self, z):
            return self.weight * z

    mean, std = torch.tensor([5.81, 3.25, 0.12, -2.15]), torch.tensor([4.17, 4.62, 3.71, 3.28])
    raw = mean.reshape(4, 1, 1) + std.reshape(4, 1, 1) * hashed("x", (11, 4, 2, 2))
    seen = (raw - mean.reshape(4, 1, 1)) * 0.5 / std.reshape(4, 1, 1)
    cases = (("edm2-img512-s", seen, None, 2 * raw - 1), ("ldm-church", 0.2276 * raw, 0.2276, raw))
    for name, samples, scale, image in cases:
        decode = PublicNetwork(card_named(name), nn.Identity(), FirstStage(), scale).decode
        torch.testing.assert_close(decode(samples), image)


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.data_range == "latent"])
def test_black_and_white_of_a_first_stage_are_0_and_255(name):
    """EDM2's autoencoder works in [0, 1] (NVlabs/edm2, training/encoders.py), all others in [-1, 1]."""

    class FirstStage(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def decode(self, z):
            return torch.stack([black, torch.ones_like(black)])[: len(z)]

    black = torch.zeros(3, 4, 4) if name.startswith("edm2") else torch.full((3, 4, 4), -1.0)
    card = card_named(name)
    decode = PublicNetwork(card, nn.Identity(), FirstStage(), 1.0).decode
    pixels = to_uint8(decode(torch.zeros(2, *card.latent_shape)))
    assert (pixels[0].unique().tolist(), pixels[1].unique().tolist()) == ([0], [255])


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.path])
def test_every_card_has_a_path_that_can_be_integrated(name):
    path = path_of(card_named(name))
    assert path.lam(path.t_finite) >= -7
    assert path.lam(path.t_data) > 2
