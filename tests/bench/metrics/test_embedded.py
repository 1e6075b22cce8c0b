"""The embedded models and the embedded extractor, as a user runs them."""

import math
import re

import numpy as np
import pytest
import scipy.linalg
import torch
from torchvision.transforms.functional import to_pil_image

from fastsample.bench.metrics.features import EMBEDDED, MetricUnavailable, open_extractor
from fastsample.datasets.images import dataset_named
from fastsample.datasets.moments import shipped_reference
from fastsample.models.catalogue import open_model
from fastsample.models.noise import normal, step_noise
from fastsample.results.store import Store
from fastsample.solvers.solver import get, solvers
from fastsample.solvers.table import play, trace

from ...measuring import value_of

MODELS = ("cifar10-tiny-vp", "cifar10-tiny-flow")
FIXED = [name for name, solver in solvers().items() if not solver.adaptive]


def denoiser(model, dtype=torch.float32):
    return model.make(model.network.to(dtype), None, 0.0, None)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("solver", ["heun", "dpm-solver-3", "dpmpp-2m", "scire", "unipc", "deis", "flow-solver"])
@torch.inference_mode()
def test_the_table_is_the_solver_to_float32_rounding(name, solver):
    model = open_model(name)
    x = normal(0, range(2), model.shape)
    plan = get(solver).plan(model.path, 8)
    counted = denoiser(model)
    result = plan(counted, x)
    assert counted.nfe == trace(plan).nfe
    # noise predictions on CondOT begin at alpha = 0.001 and subtract numbers a thousand times their result
    lost = 1e3 if plan.solver.coordinate == "eps" and name.endswith("flow") else 30
    table = trace(plan, "velocity")
    torch.testing.assert_close(play(table, denoiser(model), x), result, rtol=0, atol=lost * 5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("solver", FIXED)
@torch.inference_mode()
def test_float32_follows_float64_on_the_embedded_models(name, solver):
    model = open_model(name)
    x = normal(0, range(4), model.shape)
    plan = get(solver).plan(model.path, 20)

    def noise(step):
        return step_noise(0, range(4), model.shape, step)

    coarse = plan(denoiser(model), x, noise)
    fine = plan(denoiser(model, torch.float64), x.double(), lambda step: noise(step).double())
    mse = float((coarse.double().clamp(-1, 1) - fine.clamp(-1, 1)).square().mean())
    assert 10 * math.log10(4 / mse) >= 60


def test_the_extractor_and_its_reference():
    extractor = open_extractor(EMBEDDED, torch.device("cpu"))
    assert extractor.reference.told == f"cifar10-jpeg-train@{EMBEDDED} n=50000"
    assert shipped_reference(f"cifar10-jpeg-train@{EMBEDDED}").extractor_sha256 == extractor.sha256
    images = dataset_named("cifar10-jpeg", "test").images[:600]
    features, logits = extractor(images)
    assert features.shape == (600, len(extractor.reference.mu))
    assert logits.shape == (600, 10)
    real = value_of("fd", extractor, features, logits)
    noise = torch.randint(0, 256, (600, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert value_of("fd", extractor, *extractor(noise)) > 10 * real > 0


def test_the_distance_has_a_scale(command, tmp_path):
    """That of as many images of the test split stands below the table, and in the row, where it is no metric."""
    name = f"fd[{EMBEDDED}]@12"
    words = (
        "bench",
        "--solver",
        "ddim,heun",
        "--nfe",
        2,
        "--samples",
        12,
        "--metrics",
        "fd",
        "--out",
        tmp_path / "store",
    )
    code, out, _ = command(*words)
    assert code == 0
    extractor = open_extractor(EMBEDDED, torch.device("cpu"))
    features = extractor(dataset_named("cifar10-jpeg", "test").images[:12])[0].astype(np.float64)
    root = scipy.linalg.sqrtm(np.cov(features, rowvar=False) @ extractor.reference.sigma)
    distance = np.square(features.mean(0) - extractor.reference.mu).sum() - 2 * np.trace(root).real
    distance += np.trace(np.cov(features, rowvar=False)) + np.trace(extractor.reference.sigma)
    (said,) = (line for line in out.splitlines() if line.startswith(f"{name} of real images: "))
    told = re.fullmatch(r"([\d.]+) \(the first 12 images of cifar10-jpeg test\)\.", said.partition(": ")[2])
    assert float(told[1]) == pytest.approx(distance, rel=1e-3)
    for row in Store(tmp_path / "store", create=False).rows():
        assert [*row.metrics] == [name]
        assert row.protocol[f"real {name}"] == said.partition(": ")[2][:-1]
    assert said in command("table", tmp_path / "store")[1]


def test_a_reference_set_without_another_split_has_no_scale(command, tmp_path):
    images = dataset_named("cifar10-jpeg", "test").images[:12]
    (tmp_path / "real").mkdir()
    for number, image in enumerate(images):
        to_pil_image(image).save(tmp_path / "real" / f"{number}.png")
    words = ("--reference", f"folder:{tmp_path / 'real'}", "--out", tmp_path / "store")
    code, out, _ = command("bench", "--solver", "ddim", "--nfe", 2, "--samples", 4, "--metrics", "fd", *words)
    assert code == 0
    assert "fd[" in out
    assert "of real images" not in out


def test_fid_is_absent_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MetricUnavailable, match=r"weights are not at .*--inception-weights"):
        open_extractor("inception-v3-compat", torch.device("cpu"))
    with pytest.raises(ValueError, match="unknown feature extractor 'vgg61'"):
        open_extractor("vgg61", torch.device("cpu"))


def test_fid_is_computed_where_weights_and_images_are(tmp_path, monkeypatch):
    """torch-fidelity's Inception-v3 with fixed random weights against a small CIFAR-10 of noise."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from fastsample.bench.metrics import moments
    from fastsample.datasets.image_set import ImageDataset

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        blank = tmp_path / "blank.pth"
        blank.write_bytes(b"")
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(blank)
        )
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator)
    monkeypatch.setattr(
        moments,
        "dataset_named",
        lambda name, split: ImageDataset(name, split, images, torch.zeros(6, dtype=torch.int64)),
    )
    extractor = open_extractor("inception-v3-compat", torch.device("cpu"), tmp_path / "weights.pth")
    assert extractor.reference.told == "cifar10-train@inception-v3-compat n=6"
    found, logits = extractor(images)
    assert found.shape == (6, 2048)
    assert value_of("fid", extractor, found, logits) == pytest.approx(
        0, abs=1e-3 * float(np.trace(extractor.reference.sigma))
    )
    assert list((tmp_path / "home" / "reference").glob("*.npz"))  # computed once, cached
