"""The arithmetic of the Frechet distance: in blocks, and by torch on a device, it gives the same numbers."""

import tracemalloc

import numpy as np
import pytest
import torch

from fastsample.bench.metrics import frechet
from fastsample.bench.metrics.features import Extractor
from fastsample.bench.metrics.frechet import extrapolate, features_distance, influence, symmetric_root

D = 24
RNG = np.random.default_rng(5)
REAL = RNG.standard_normal((200, D)) @ RNG.standard_normal((D, D))
REFERENCE = REAL.mean(0), symmetric_root(np.cov(REAL, rowvar=False))
FEATURES = (0.1 + RNG.standard_normal((20_001, D)) @ RNG.standard_normal((D, D))).astype(np.float32)


def numbers(features, device=None):
    """Everything that is computed of features, in one array."""
    found = [features_distance(features, REFERENCE, device), *influence(features, REFERENCE, device).ravel()]
    if len(features) >= 20 * D:
        whole = extrapolate(features, REFERENCE, device=device)
        found += [whole.value, *whole.parts[0].ravel()]
    return np.array(found)


@pytest.mark.parametrize("count", [2, 100, 700])
def test_torch_on_a_device_gives_the_numbers_of_numpy(count, monkeypatch):
    features = FEATURES[:count]
    monkeypatch.setattr(frechet, "_few", lambda features: len(features) == 2)
    np.testing.assert_allclose(numbers(features, torch.device("cpu")), numbers(features), rtol=1e-10, atol=1e-10)
    root = symmetric_root(np.cov(REAL, rowvar=False), torch.device("cpu"))
    np.testing.assert_allclose(root, REFERENCE[1], rtol=1e-10, atol=1e-10)


def test_blocks_give_the_numbers_of_the_whole_in_a_fraction_of_its_memory(monkeypatch):
    whole = numbers(FEATURES)
    monkeypatch.setattr(frechet, "_BLOCK", 1000 * D)
    monkeypatch.setattr(frechet, "_COLUMNS", 5)
    np.testing.assert_allclose(numbers(FEATURES), whole, rtol=1e-10, atol=1e-10)
    wide = 8 * FEATURES.size
    for job in (features_distance, influence, extrapolate):
        tracemalloc.start()
        job(FEATURES, REFERENCE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < wide / 2, job.__name__


@pytest.mark.parametrize(("device", "chosen"), [("cpu", False), ("cuda:1", True), ("mps", False)])
def test_a_judge_computes_on_its_device_where_that_has_float64(device, chosen):
    device = torch.device(device)
    assert Extractor("", None, device).arithmetic == (device if chosen else None)
