"""Perceptual distances of training: zero for equal images, differentiable, and LPIPS in rfpp's form."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fastsample.models.checkpoints import CheckpointError, ClassifierMetadata, save_checkpoint
from fastsample.models.networks.conv_classifier import ConvClassifier
from fastsample.models.training.perceptual import FeatureDistance, perceptual_named

ARGS = {"img_resolution": 8, "widths": [4, 8], "features": 8}


def pair(n=2, side=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, side, side, generator=generator) * 2 - 1, torch.rand(n, 3, side, side, generator=generator)


def test_features_of_unit_length_are_compared():
    torch.manual_seed(0)
    classifier = ConvClassifier(**ARGS)
    distance, (a, b) = FeatureDistance(classifier), pair()
    assert distance(a, a).abs().max() == 0
    expected = torch.zeros(2)
    for f, g in zip(classifier.maps(a), classifier.maps(b), strict=True):
        cosine = torch.nn.functional.cosine_similarity(f, g, dim=1)
        lengths = f.norm(dim=1).sign() + g.norm(dim=1).sign()  # of unit length, or zero where all features are
        expected += (lengths - 2 * cosine).mean((1, 2))
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(distance(a, b), distance(b, a))
    a.requires_grad_()
    distance(a, b).sum().backward()
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0
    assert all(p.grad is None for p in classifier.parameters())
    black = torch.full_like(b, -1.0, requires_grad=True)
    distance(black, b).sum().backward()
    assert black.grad.isfinite().all()


def test_features_come_from_a_classifiers_file(tmp_path):
    network, file = ConvClassifier(**ARGS), tmp_path / "mine.safetensors"
    facts = ClassifierMetadata(
        id="mine", title="mine", network="ConvClassifier", network_args=ARGS, image_shape=(3, 8, 8), num_classes=10,
        data="none", data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="", precision="",
        storage="float32", test_accuracy=0, test_data="none",
    )  # fmt: skip
    save_checkpoint(file, network.state_dict(), facts)
    a, b = pair()
    assert torch.equal(perceptual_named(str(file))(a, b), FeatureDistance(network)(a, b))
    with pytest.raises(ValueError, match="it holds a denoiser, and features need a classifier"):
        perceptual_named("cifar10-tiny-flow")
    with pytest.raises(CheckpointError, match="neither a file nor an embedded model"):
        perceptual_named("nobody")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache of torch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def lpips(hub):
    """LPIPS with random weights in the published files."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(widths)}
    tensors = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    torch.save(tensors, hub / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)  # as it is published
    torch.save(heads, hub / "weights-vgg16-lpips.pth")
    return perceptual_named("lpips"), features, heads


class Touch:
    """Pickles as a call that makes the file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_lpips_are_neither_executed_nor_fetched(zipped, hub, tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg16-397923af.pth, which is not there: fetch https://"):
        perceptual_named("lpips")
    evil = {"features.0.weight": Touch(tmp_path / "canary")}
    torch.save(evil, hub / "vgg16-397923af.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"is not a state dict: it has features\.0\.weight, and no"):
        perceptual_named("lpips")
    assert not (tmp_path / "canary").exists()
    torch.load(hub / "vgg16-397923af.pth", weights_only=False)
    assert (tmp_path / "canary").exists()


def test_lpips_has_average_pooling(lpips):
    layers = [layer for layer in lpips[0].modules() if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)]
    assert [(type(layer), layer.kernel_size) for layer in layers] == [(nn.AvgPool2d, 2)] * 4
    assert not any(p.requires_grad for p in lpips[0].parameters())
    assert not any(layer.training for layer in lpips[0].modules() if isinstance(layer, nn.Dropout))


@pytest.mark.slow
def test_lpips_is_that_of_rfpp(lpips):
    """As piq computes it: [0, 1], bilinear to 224, ImageNet's statistics, no clamping."""
    distance, features, heads = lpips
    a, b = pair(1)
    a.mul_(1.5).requires_grad_()  # outside of [-1, 1]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = []
    for x in (a, b):
        h = torch.nn.functional.interpolate((x + 1) / 2, (224, 224), mode="bilinear")
        h, found = (h - mean) / std, []
        for index, layer in enumerate(features[:30]):
            h = torch.nn.functional.avg_pool2d(h, 2) if isinstance(layer, nn.MaxPool2d) else layer(h)
            if index in (3, 8, 15, 22, 29):
                found.append(h / (h.norm(dim=1, keepdim=True) + 1e-10))
        maps.append(found)
    weights = [head[0] for head in heads.values()]
    terms = [((f - g).square() * w).sum(1).mean() for f, g, w in zip(*maps, weights, strict=True)]
    found = distance(a, b)
    torch.testing.assert_close(found, sum(terms)[None], rtol=1e-3, atol=1e-5)
    assert distance(b, b).item() == 0
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
