"""The recipes of the papers at their full size: one step of each, on the CPU and with one image."""

import pytest
import torch

from fastsample.bench.learning.pairs import generate
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.analytic import image_mixture
from fastsample.models.catalogue import Model
from fastsample.models.checkpoints import ClassifierMetadata, embedded_models, save_checkpoint
from fastsample.models.networks.conv_classifier import ConvClassifier
from fastsample.models.networks.registry import build_network
from fastsample.models.path import LinearFlow
from fastsample.models.public.cards import card_named
from fastsample.models.training import pairs
from fastsample.models.training.recipe import Learned, changed, recipes
from fastsample.models.training.state import State, describe
from fastsample.models.training.trainer import draw
from fastsample.solvers.solver import get
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace

# As counted from the official code: the network, and the encoder.
PARAMETERS = {
    "fast-ode-cifar10": (55_732_739, 2_208_966),
    "fast-ode-ffhq64": (61_804_419, 2_475_654),
    "rfpp-cifar10": (56_397_827, 0),
    "rfpp-cifar10-distilled": (56_397_827, 0),
    "rfpp-afhq64": (62_761_091, 0),
    "rfpp-ffhq64": (62_761_091, 0),
    "rfpp-imagenet64": (295_899_267, 0),
}  # fmt: skip


def recipe_of(name, **changes):
    return changed(recipes()[name], changes)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_size(name):
    recipe = recipe_of(name)
    with torch.device("meta"):
        networks = [build_network(recipe.network, recipe.network_args)]
        if isinstance(recipe.coupling, Learned):
            networks.append(build_network(recipe.coupling.network, recipe.coupling.network_args))
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert (*counts, 0)[:2] == PARAMETERS[name]
    assert recipe.parameters == counts[0]
    for halflife in recipe.ema_halflife_images:
        assert recipe.ema_decay_at(0, halflife) == pytest.approx(0.9999, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name.startswith("rfpp")])
def test_the_teachers_weights_fit_the_network(name):
    """Every tensor of the network is in the file of the card, and none is left over."""
    recipe = recipe_of(name)
    for card in (card_named(recipe.start), card_named(recipe.coupling.teacher)):
        with torch.device("meta"):
            theirs = build_network(card.network.name, card.network.config).state_dict()
            ours = build_network(recipe.network, recipe.network_args).state_dict()
        assert {key: t.shape for key, t in theirs.items()} == {key: t.shape for key, t in ours.items()}
        assert card.labels.classes == recipe.classes
    if recipe.coupling.solver.startswith("edm-heun"):
        path = card_named(recipe.coupling.teacher).path.build()
        plan = Spec.parse(recipe.coupling.solver).plan(path, recipe.coupling.nfe)
        assert trace(plan, "x0").nfe == recipe.coupling.nfe  # the published 35 and 79
        assert plan.denoise


def data_for(recipe, side, folder, monkeypatch):
    """One random image, or one pair of an exact mixture of that size."""
    if isinstance(recipe.coupling, Learned):
        pixels = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        return ImageDataset(recipe.dataset, "train", pixels, torch.zeros(1, dtype=torch.int64))
    monkeypatch.setattr(pairs, "SHARD", 1)
    shape, path = (3, side, side), LinearFlow()
    mixture = image_mixture(path, shape)
    model = Model("mixture", "", "", path, shape, shape, "analytic", recipe.classes, None, lambda *_: mixture)
    generate(model, get("heun").plan(path, 9), folder, 1, recipe.coupling.seed, solver="heun")
    return pairs.PairStore(folder, 1)


def features(folder):
    """The embedded classifier, or an untrained one."""
    if "cifar10-conv" in embedded_models():
        return "cifar10-conv"
    facts = ClassifierMetadata(
        id="conv", title="conv", network="ConvClassifier", network_args={}, image_shape=(3, 32, 32), num_classes=10,
        data="none", data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="", precision="",
        test_accuracy=0, test_data="none",
    )  # fmt: skip
    save_checkpoint(folder / "conv.safetensors", ConvClassifier().state_dict(), facts)
    return str(folder / "conv.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_one_step_at_full_size(name, tmp_path, monkeypatch):
    one = dict(batch=1, accumulate=1, images=1, warmup_images=0, start="", precision="float32")
    recipe = recipe_of(name, perceptual=features(tmp_path), **one)
    torch.manual_seed(0)
    data = data_for(recipe, 32 if "cifar10" in name else 64, tmp_path, monkeypatch)
    run = State(recipe, data, describe(recipe, data, "float32"), tmp_path, "cpu", None)
    before = {key: float(p.detach().double().sum()) for key, p in run.objective.named_parameters()}
    run.objective.train()
    loss, penalty = run.objective(draw(run, data))
    (loss + penalty).mean().backward()
    norm, lr = run.update()
    assert loss.isfinite().all()
    assert 0 < norm < float("inf")
    assert lr == recipe.lr
    moved = [key for key, p in run.objective.named_parameters() if float(p.detach().double().sum()) != before[key]]
    assert any(key.startswith("network.") for key in moved)
    assert any(key.startswith("coupling.") for key in moved) == isinstance(recipe.coupling, Learned)
    assert len(moved) > 10
    averaged = run.emas[0]
    assert any(not torch.equal(averaged[key], p) for key, p in run.objective.named_parameters())
