"""The catalogue of public checkpoints: every card is valid, and its network has the published keys and shapes."""

import gzip
import hashlib
import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named, cards

DATA = Path(__file__).parents[1] / "data" / "networks"
MANIFEST = json.loads(gzip.decompress((DATA / "arch_manifest.json.gz").read_bytes()))["models"]

# Entry of the manifest -> card whose network it is.
CARDS = {
    "DiT-XL-2-256x256": "dit-xl2-256",
    "SiT-XL-2-256x256": "sit-xl2-256",
    "adm-imagenet256-cond": "adm-imagenet256",
    "adm-imagenet64-cond": "adm-imagenet64",
    "adm-lsun-bedroom256": "adm-bedroom",
    "baseline-cifar10-32x32-uncond-vp": "edm-baseline-cifar10-vp",
    "baseline-imagenet-64x64-cond-adm": "edm-baseline-imagenet64",
    "cm-edm-lsun256-guided-layout": "cm-edm-bedroom",
    "ddim-celeba64": "ddim-celeba64",
    "edm-cifar10-32x32-cond-vp": "edm-cifar10-cond-vp",
    "edm-cifar10-32x32-uncond-ve": "edm-cifar10-uncond-ve",
    "edm-cifar10-32x32-uncond-vp": "edm-cifar10-uncond-vp",
    "edm-ffhq-64x64-uncond-vp": "edm-ffhq64-vp",
    "edm-imagenet-64x64-cond-adm": "edm-imagenet64",
    "edm2-img512-s": "edm2-img512-s",
    "edm2-img512-xs-uncond": "edm2-img512-xs-uncond",
    "edm2-img512-xs": "edm2-img512-xs",
    "edm2-img512-xxl": "edm2-img512-xxl",
    "edm2-img64-s": "edm2-img64-s",
    "edm2-img64-xl": "edm2-img64-xl",
    "edm2-img64-xs": "edm2-img64-xs-autog",
    "fast-ode-cifar10_de": "fast-ode-cifar10",
    "hf-google-ddpm-256": "hf-ddpm-church",
    "hf-google-ddpm-cifar10-32": "hf-ddpm-cifar10",
    "iddpm-cifar10": "iddpm-cifar10",
    "iddpm-imagenet64-uncond": "iddpm-imagenet64-uncond",
    "ldm-celeba256-unet": "ldm-celebahq256",
    "ldm-celeba256-first-stage": "ldm-celebahq256",
    "ldm-cin256-v2-unet": "ldm-cin256",
    "ldm-cin256-v2-first-stage": "ldm-cin256",
    "ldm-lsun-beds256-unet": "ldm-bedroom",
    "ldm-lsun-beds256-first-stage": "ldm-bedroom",
    "ldm-lsun-churches256-unet": "ldm-church",
    "ldm-lsun-churches256-first-stage": "ldm-church",
    "pesser-cifar10": "ddpm-cifar10",
    "rf-bedroom_rf_gaussian": "rf-bedroom",
    "rf-celeba_hq_rf_gaussian": "rf-celebahq256",
    "rf-cifar10_rf_gaussian_ddpmpp": "rf-cifar10-1",
    "rfpp-cifar10_ve_aug": "rfpp-cifar10",
    "rfpp-ffhq64_ve_aug": "rfpp-ffhq64",
    "rfpp-imagenet64": "rfpp-imagenet64",
    "sde-ve-bedroom_ncsnpp_continuous": "sde-ve-bedroom",
    "sde-ve-celebahq_256_ncsnpp_continuous": "sde-ve-celebahq256",
    "sde-ve-cifar10_ncsnpp_continuous": "sde-ve-ncsnpp",
    "sde-ve-ffhq_256_ncsnpp_continuous": "sde-ve-ffhq256",
    "sde-vp-cifar10_ddpmpp": "sde-vp-ddpmpp-disc",
    "sde-vp-cifar10_ddpmpp_continuous": "sde-vp-ddpmpp",
    "sde-vp-cifar10_ddpmpp_deep_continuous": "sde-vp-ddpmpp-deep",
    "sde-vp-ddpm-cifar10": "sde-vp-ddpm",
    "torchcfm-cifar10": "torchcfm-cifar10-otcfm",
}


# Of the original class with the arguments that guided-diffusion's README and defaults give: tensors, elements, sha256
# of the sorted lines, as in the manifest.
CLASSIFIERS = {
    "adm-imagenet64-classifier":
        (307, 65_438_568, "7c51ea3604bd9bb20ac07ee1d7de121949a723f2f4f184f6461002b43dc69ef5"),
    "adm-imagenet256-classifier":
        (249, 54_096_360, "3f6315351819a1567b9a0bddd998e5f2a44d3ecd53d99342397c1bbd1c308825"),
}  # fmt: skip


def shapes_of(network):
    return built_shapes(network.name, json.dumps(network.config, sort_keys=True))


@cache
def built_shapes(name, config):
    with torch.device("meta"):
        state = build_network(name, json.loads(config)).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_every_manifest_entry_has_a_card():
    assert {*CARDS} == {*MANIFEST}


@pytest.mark.parametrize("entry", MANIFEST)
def test_a_card_has_the_published_keys_and_shapes(entry):
    told, card = MANIFEST[entry], card_named(CARDS[entry])
    shapes = shapes_of(card.first_stage if entry.endswith("first-stage") else card.network)
    if card.network.name == "ClassTokenUNet" and entry.endswith("unet"):
        shapes = {name.removeprefix("unet."): shape for name, shape in shapes.items() if name.startswith("unet.")}
    first = told["first"][0]
    prefix = next((p for p in ("module.", "model.diffusion_model.", "first_stage_model.") if first.startswith(p)), "")
    lines = sorted(f"{prefix}{name}\t{'x'.join(map(str, shape)) or 'scalar'}\n" for name, shape in shapes.items())
    assert len(lines) == told["n_tensors"]
    assert sum(map(math.prod, shapes.values())) == told["n_elements"]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == told["sha256_sorted"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_the_published_keys_and_shapes(name):
    shapes = shapes_of(card_named(name).network)
    lines = sorted(f"{key}\t{'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
    sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (len(lines), sum(map(math.prod, shapes.values())), sha256) == CLASSIFIERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_one_forward_of_a_classifier_at_its_published_size(name):
    card = card_named(name)
    network = build_network(card.network.name, card.network.config).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, *card.image_shape), torch.tensor([0.5]))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", cards())
def test_every_card_is_consistent(name):
    card = card_named(name)
    channels = (card.latent_shape if card.data_range == "latent" else card.image_shape)[0]
    shapes = shapes_of(card.network)
    out = {shapes[key][0] for key in ("out.2.bias", "conv_out.bias", "unet.out.2.bias") if key in shapes}
    assert card.output == "image" or out <= {channels + card.extra_channels}
    total = sum(map(math.prod, shapes.values())) * (2 if card.source == "NVlabs/edm2" else 4) / 1e6
    assert card.size_mb >= 0.99 * total
    if isinstance(card.first_stage, str):
        assert card_named(card.first_stage).output == "image"
    if card.classifier:
        guide = card_named(card.classifier)
        assert (guide.output, guide.time, guide.image_shape) == ("logits", card.time, card.image_shape)
        assert guide.network.config["out_channels"] == (card.labels.classes or 1000)
    if card.labels.classes:
        widths = {key: shape for key, shape in shapes.items() if "label" in key or "embedding" in key}
        assert any(0 <= n - card.labels.classes <= card.labels.null for shape in widths.values() for n in shape)
    assert card.licence
    assert card.papers


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.path])
def test_paths_and_time_labels(name):
    """At the ends of its path a network of a table is called with the first and the last index of the table."""
    card = card_named(name)
    path = card.path.build()
    assert path.name == card.path.name
    ends = path.t_noise, path.t_data
    seen = [math.log(t) for t in ends] if card.time.map == "log" else ends
    labels = [card.time.scale * t + card.time.shift for t in seen]
    if card.path.name == "vp-discrete":
        rescaled = card.path.steps / card.time.scale
        assert labels[0] == pytest.approx((card.path.steps - 1) / rescaled)
        assert card.time.scale * (1 / card.path.steps) + card.time.shift == pytest.approx(0.0)
    if name == "sde-ve-ncsnpp-disc":
        assert labels == pytest.approx([0.0, 999.0], abs=1e-9)


def test_betas_are_those_of_their_papers():
    linear, scaled, cosine = (card_named(n).path.betas() for n in ("ddpm-cifar10", "ldm-church", "iddpm-cifar10"))
    assert (len(linear), linear[0], linear[-1]) == (1000, pytest.approx(1e-4), pytest.approx(0.02))
    roots = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000)
    torch.testing.assert_close(torch.tensor(scaled), roots.square(), rtol=1e-5, atol=0)

    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [min(1 - f((i + 1) / 4000) / f(i / 4000), 0.999) for i in range(4000)]
    torch.testing.assert_close(torch.tensor(cosine), torch.tensor(expected), rtol=1e-5, atol=1e-9)


OWN = """
[mine]
like = "edm-cifar10-cond-vp"
title = "My own"
page = "https://example.org"
file = "mine.pkl"
size_mb = 3
[mine.network.config]
label_dim = 7
"""


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    card = card_named(str(file))
    assert (card.id, card.urls, card.fid, card.network.config["label_dim"]) == ("mine", (), (), 7)
    assert card.network.config["channel_mult"] == [2, 2, 2]
    file.write_text(OWN + '[other]\nlike = "mine"\ntitle = "x"\npage = "y"\nfile = "z"\nsize_mb = 1\n')
    assert card_named(f"{file}#other").network == card.network
    with pytest.raises(CheckpointError, match="choose one"):
        card_named(str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[mine", "not a TOML file"),
        ("a = 1", "must be a table"),
        (OWN.replace("edm-cifar10-cond-vp", "nobody"), "'nobody' is not a card"),
        (OWN.replace("edm-cifar10-cond-vp", "mine"), "goes in a circle"),
        (OWN.replace('page = "https://example.org"', ""), "needs urls, or the page"),
        (OWN.replace("size_mb = 3", 'size_mb = 3\nurls = ["file:///etc/passwd"]'), "neither https"),
        (OWN.replace("mine.pkl", "../mine.pkl"), "file"),
        (OWN.replace("size_mb = 3", "size_mb = 3\nnetwork.name = 'Nothing'"), "unknown network"),
        (OWN.replace("size_mb = 3", "size_mb = 3\ncolour = 'red'"), "colour"),
        (OWN.replace("size_mb = 3", "size_mb = 3\nclassifier = 'x'"), "classifier guidance needs an output eps"),
    ],
)
def test_a_wrong_card_is_told(tmp_path, text, told):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=told):
        card_named(str(file))


def test_an_unknown_id_offers_the_nearest():
    with pytest.raises(CheckpointError, match="did you mean edm-cifar10-uncond-vp"):
        card_named("edm-cifar10-uncond")
