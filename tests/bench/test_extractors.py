"""Our extractor inside torch-fidelity, and statistics against torch-fidelity's own."""

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_fid import fid_features_to_statistics

from fastsample.bench.extractors import compute_reference, extractor_named, weights_sha256
from fastsample.datasets.images import ImageDataset, dataset_named
from fastsample.datasets.reference import shipped_reference


@pytest.fixture(scope="module")
def photographs():
    test = dataset_named("cifar10-jpeg", "test")
    return ImageDataset(test.name, test.split, test.images[:1000], test.labels[:1000])


def test_statistics_agree_with_those_of_torch_fidelity(photographs):
    stats = compute_reference(photographs, "cifar10-resnet", batch=128)
    network = extractor_named("cifar10-resnet", ["features"])
    with torch.no_grad():
        features = torch.cat([network(images)[0] for images in photographs.images.split(250)])
    told = fid_features_to_statistics(features.double())
    np.testing.assert_allclose(stats.mu, told["mu"], rtol=1e-6)
    np.testing.assert_allclose(stats.sigma, told["sigma"], rtol=1e-5, atol=1e-9)
    assert (stats.n, stats.name) == (1000, "cifar10-jpeg-test@cifar10-resnet")


def test_the_shipped_reference_is_of_the_shipped_extractor(photographs):
    reference = shipped_reference("cifar10-jpeg-train@cifar10-resnet")
    network = extractor_named("cifar10-resnet", ["features"])
    assert reference.n == 50_000
    assert reference.extractor_sha256 == weights_sha256(network)
    here = compute_reference(photographs, "cifar10-resnet").mu
    error = np.sqrt(np.diag(reference.sigma) / len(photographs))
    assert np.abs((here - reference.mu) / error).mean() < 3


def test_torch_fidelity_runs_on_it(photographs):
    parts = zip(photographs.images.split(500), photographs.labels.split(500), strict=True)
    half = [ImageDataset("cifar10-jpeg", "test", *part) for part in parts]
    metrics = calculate_metrics(
        input1=half[0], input2=half[1], feature_extractor="cifar10-resnet", isc=True, fid=True, kid=True, prc=True,
        kid_subset_size=100, cuda=False, save_cpu_ram=True, cache=False, verbose=False, batch_size=250,
    )  # fmt: skip
    assert 3 < metrics["inception_score_mean"] <= 10
    assert metrics["frechet_inception_distance"] > 0
    assert abs(metrics["kernel_inception_distance_mean"]) < 0.1
    assert metrics["precision"] > 0.5


def test_features_come_in_the_order_asked_for(photographs):
    images = photographs.images[:4]
    with torch.no_grad():
        logits, features = extractor_named("cifar10-resnet", ["logits", "features"])(images)
    assert logits.shape == (4, 10)
    assert features.shape[1] > 10


def test_unknown_extractors_list_the_known_ones(photographs):
    with pytest.raises(ValueError, match=r"known: .*cifar10-resnet"):
        compute_reference(photographs, "inception-v9")
