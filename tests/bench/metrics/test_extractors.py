"""Our extractor inside torch-fidelity, and statistics against torch-fidelity's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fastsample.bench.metrics import moments
from fastsample.bench.metrics.extractors import compute_reference, extractor_named, refusal, weights_sha256
from fastsample.bench.metrics.features import open_extractor
from fastsample.datasets.image_set import ImageDataset
from fastsample.datasets.images import dataset_named
from fastsample.datasets.moments import ReferenceError, ReferenceStats, shipped_reference

from ...measuring import value_of


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


@pytest.mark.parametrize(
    ("name", "count"), [("cifar10-resnet", 300), pytest.param("inception-v3-compat", 128, marks=pytest.mark.slow)]
)
def test_metrics_of_bench_are_those_of_torch_fidelity(name, count, photographs, tmp_path, monkeypatch, request):
    """From images to numbers on both sides; the real images are darkened, so that the sets differ.

    Inception's 2048 features outnumber the images here. Then both codes add up square roots of eigenvalues that are
    zero but for rounding, which is up to 1e-6 of such a distance, and 4e-5 of one between sets that hardly differ.
    """
    weights = request.getfixturevalue("inception_weights") if name == "inception-v3-compat" else None
    images, labels = photographs.images, photographs.labels
    made = ImageDataset("made", "test", images[:count], labels[:count])
    real = ImageDataset("real", "test", images[count : 2 * count] // 2, labels[count : 2 * count])

    def absent(title):
        raise ReferenceError(title)

    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    monkeypatch.setattr(moments, "dataset_named", lambda *_: real)
    monkeypatch.setattr(moments, "shipped_reference", absent)
    extractor = open_extractor(name, torch.device("cpu"), weights)
    found = [extractor(batch) for batch in made.batches(50)]
    arrays = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    kinds = ("fid", "kid", "is", "precision", "recall")
    ours = {kind: value_of(kind.replace("fid", "fd"), extractor, *arrays) for kind in kinds}
    theirs = calculate_metrics(
        input1=made, input2=real, feature_extractor=name, isc=True, fid=True, kid=True, prc=True,
        feature_extractor_weights_path=None if weights is None else str(weights), kid_subset_size=count, batch_size=64,
        cuda=False, save_cpu_ram=True, cache=False, verbose=False,
    )  # fmt: skip
    names = {
        "fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean", "is": "inception_score_mean",
        "precision": "precision", "recall": "recall",
    }  # fmt: skip
    assert ours == {kind: pytest.approx(theirs[told], rel=1e-6) for kind, told in names.items()}
    assert ours["fid"] > 0.1
    streamed = compute_reference(made, name, batch=50, weights=weights), extractor.reference
    distance = fid_statistics_to_metric(*({"mu": one.mu, "sigma": one.sigma} for one in streamed), False)
    assert distance["frechet_inception_distance"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_cached_moments_that_are_damaged_or_of_others_are_made_anew(photographs, monkeypatch, tmp_path):
    few = ImageDataset("cifar10-jpeg", "train", photographs.images[:8], photographs.labels[:8])
    monkeypatch.setattr(moments, "dataset_named", lambda *_: few)
    monkeypatch.setattr(moments, "shipped_reference", lambda title: ReferenceStats.load(tmp_path / title))
    right = open_extractor("cifar10-resnet", torch.device("cpu")).reference
    (file,) = (tmp_path / "home" / "reference").glob("*.npz")
    made = ReferenceStats.load(file)
    other = replace(made, mu=made.mu + 1, extractor_sha256="0" * 64)
    for spoil in (lambda: file.write_bytes(file.read_bytes()[:-100]), lambda: other.save(file)):
        spoil()
        np.testing.assert_array_equal(open_extractor("cifar10-resnet", torch.device("cpu")).reference.mu, right.mu)
        np.testing.assert_array_equal(ReferenceStats.load(file).mu, right.mu)


def test_features_come_in_the_order_asked_for(photographs):
    images = photographs.images[:4]
    with torch.no_grad():
        logits, features = extractor_named("cifar10-resnet", ["logits", "features"])(images)
    assert logits.shape == (4, 10)
    assert features.shape[1] > 10


def test_the_classifier_of_small_images_refuses_others(photographs):
    larger = photographs.images[:2].repeat(1, 1, 2, 2)
    with pytest.raises(ValueError, match="means nothing on images of 64x64"):
        extractor_named("cifar10-resnet", ["features"])(larger)
    assert refusal("cifar10-resnet", (3, 32, 32)) == refusal("efficientnet-lite0", (3, 64, 64)) == ""


def test_unknown_extractors_list_the_known_ones(photographs):
    with pytest.raises(ValueError, match=r"known: .*cifar10-resnet"):
        compute_reference(photographs, "inception-v9")
