"""EDM2's `fd_dinov2`: its resizing, and the second table of its files of statistics."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastsample.bench.metrics import clip_and_dinov2
from fastsample.bench.metrics.extractors import extractor_named, unpublished
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.bench.metrics.reference import reference_set

CPU = torch.device("cpu")


def seen(name, weights=""):
    return SimpleNamespace(name=name, weights=weights, sha256="0" * 64, device=CPU, network=None)


@pytest.fixture
def published(tmp_path):
    rng, tables = np.random.default_rng(0), {"num_images": 8}
    for metric, width in (("fid", 2048), ("fd_dinov2", 3)):
        features = rng.normal(size=(8, width))
        tables[metric] = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    (tmp_path / "img64.pkl").write_bytes(pickle.dumps(tables))
    return reference_set(str(tmp_path / "img64.pkl"), None), tables


def test_each_extractor_gets_its_table_and_others_are_refused_by_name(published):
    reference, tables = published
    for name, metric in (("inception-v3-compat", "fid"), ("dinov2-edm2", "fd_dinov2")):
        known = reference.moments(seen(name))
        np.testing.assert_array_equal(known.mu, tables[metric]["mu"])
        np.testing.assert_array_equal(known.sigma, tables[metric]["sigma"])
        assert known.told.startswith("img64.pkl sha256 ")
    with pytest.raises(MetricUnavailable, match="from which a distance of those of dinov2-vit-l-14 means nothing"):
        reference.moments(seen("dinov2-vit-l-14"))
    with pytest.raises(MetricUnavailable, match="published weights of dinov2-edm2, and those here are others"):
        reference.moments(seen("dinov2-edm2", "1a2b3c4d"))


def test_a_file_without_that_table_is_refused(tmp_path):
    np.savez(tmp_path / "only.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "only.pkl").write_bytes(pickle.dumps({"fid": {"mu": np.zeros(3), "sigma": np.eye(3)}}))
    told_of = {"only.npz": "of inception-v3-compat, from which", "only.pkl": "no statistics for 'fd_dinov2'"}
    for name, told in told_of.items():
        with pytest.raises(MetricUnavailable, match=told):
            reference_set(str(tmp_path / name), None).moments(seen("dinov2-edm2"))


def test_images_are_resized_and_normalised_as_edm2_does(tmp_path, monkeypatch):
    """On an image enlarged from one pixel the mean and deviation show; on a wide one what antialiasing does."""
    monkeypatch.setitem(clip_and_dinov2.DINOV2, "vitl14", (8, 0, 2))
    torch.save(clip_and_dinov2.DinoV2(8, 0, 2).state_dict(), tmp_path / "tiny.pth")
    extractor = extractor_named("dinov2-edm2", ["dinov2"], CPU, tmp_path / "tiny.pth")
    assert unpublished("dinov2-edm2", tmp_path / "tiny.pth")
    extractor.model.forward = lambda x: x  # what the network is given
    grey = torch.full((1, 3, 448, 448), 51, dtype=torch.uint8)
    wanted = (0.2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(extractor(grey)[0][0, :, 100, 100], wanted, rtol=1e-5)
    stripes = grey.clone()
    stripes[..., ::2] = 0
    inner = extractor(stripes)[0][0, :, 20:-20, 20:-20]
    assert inner.std(dim=(1, 2)).max() < 0.02  # the average of both stripes everywhere
    wanted = (0.1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(inner.mean((1, 2)), wanted, 1e-3)
