"""The shipped classifier: its size, its contract, and the accuracy its metadata claims."""

import math

import pytest
import torch

from fastsample.datasets.image_set import ImageDataset
from fastsample.datasets.images import dataset_named
from fastsample.models import checkpoints
from fastsample.models.checkpoints import load_model
from fastsample.models.networks.cifar_resnet import CifarResNet
from fastsample.models.training.classifier import accuracy


def test_features_and_logits():
    network = CifarResNet(num_classes=7, stem=4, widths=(4, 8)).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features, logits = network(images)
    assert features.shape == (3, 8)
    assert logits.shape == (3, 7)
    assert features.min() >= 0
    torch.testing.assert_close(logits, network.head(features))


def test_the_shipped_classifier_is_as_accurate_as_it_says():
    network, metadata, _ = load_model("cifar10-resnet")
    assert metadata.test_accuracy >= 0.85
    test = dataset_named("cifar10-jpeg", "test")
    some = ImageDataset(test.name, test.split, test.images[:2000], test.labels[:2000])
    spread = math.sqrt(metadata.test_accuracy * (1 - metadata.test_accuracy) / len(some))
    assert accuracy(network, some) == pytest.approx(metadata.test_accuracy, abs=3 * spread)


def test_the_shipped_classifier_is_small():
    assert (checkpoints._EMBEDDED / "cifar10-resnet.safetensors").stat().st_size <= 3_000_000
