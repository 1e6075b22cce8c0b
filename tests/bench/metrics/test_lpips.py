"""LPIPS against the reference solution, through the command line: that of torch-fidelity, and its embedded form."""

import numpy as np
import pytest
import torch
import torchvision
from torch_fidelity import sample_similarity_lpips
from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.extractors import unpublished
from fastsample.bench.metrics.features import open_network
from fastsample.bench.metrics.lpips import lpips_of, lpips_on_vgg16
from fastsample.bench.metrics.measure import Batch, Tools
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.models.checkpoints import load_model
from fastsample.models.training.perceptual import FeatureDistance
from fastsample.results.comparable import what_decides
from fastsample.results.metrics import parse_metric
from fastsample.results.papers.stated import kind_of
from fastsample.results.store import Store

from ...command import command
from .test_weights import hostile

CPU = torch.device("cpu")
MODEL = "cifar10-tiny-flow"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(LPIPS's file, VGG-16's) with random weights, without the classifier's layers."""
    folder, generator = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    for parameter in features.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(widths)}
    torch.save(heads, folder / "heads.pth")
    torch.save({f"features.{name}": tensor for name, tensor in features.state_dict().items()}, folder / "vgg16.pth")
    return folder / "heads.pth", folder / "vgg16.pth"


@pytest.fixture
def theirs(files, monkeypatch):
    """torch-fidelity's distance of images with levels from 0 to 255, its fetching aside."""
    heads, trunk = (torch.load(file) for file in files)
    network = torchvision.models.vgg16()
    network.load_state_dict(trunk, strict=False)
    monkeypatch.setattr(sample_similarity_lpips, "load_state_dict_from_url", lambda *_, **__: heads)
    monkeypatch.setattr(sample_similarity_lpips, "torchvision_load_pretrained_vgg16", lambda: network)
    return SampleSimilarityLPIPS("lpips-vgg16")


def given(files):
    heads, trunk = files
    return ("--extractor-weights", f"lpips-vgg16={heads}", "--extractor-weights", f"vgg16={trunk}")


def bench(folder, *words):
    ended = command("bench", "--solver", "euler", "--nfe", 2, "--samples", 4, "--out", folder / "s", *words)
    return ended, Store(folder / "s").rows()


def pair():
    """Images of four samples and of their reference solutions, in [-1, 1]."""
    (cell,), _ = plan_cells(Request(model=MODEL, solver="euler", nfe=2, samples=4), ())
    batch = Batch(cell, list(range(4)), Tools(Sampler(CPU)))
    with torch.inference_mode():
        batch.sample(recorded=False)
        return batch.images.clamp(-1, 1), batch.solution_images.clamp(-1, 1)


def test_lpips_is_that_of_torch_fidelity(files, theirs, coarse, tmp_path):
    ended, (row,) = bench(tmp_path, "--model", MODEL, "--metrics", "lpips,psnr", *given(files))
    assert ended.code == 0, ended.err
    values = theirs(*((images + 1) * 127.5 for images in pair())).double().numpy()
    seen = lpips_on_vgg16(dict(zip(("lpips-vgg16", "vgg16"), files, strict=True)), CPU)
    name = f"lpips[{seen.identity}]"  # the weights are not the published ones
    assert seen.identity == f"lpips-vgg16:{seen.sha256[:8]}"
    assert values.min() > 1e-3
    assert row.metrics[name] == pytest.approx(values.mean(), rel=1e-6)
    assert row.standard_errors[name] == pytest.approx(values.std(ddof=1) / 2, rel=1e-5)
    np.testing.assert_allclose(Store(tmp_path / "s").per_sample(row.cell)[name], values, rtol=1e-6)
    decides = what_decides(Store(tmp_path / "s").frame().iloc[0], name)
    assert decides[f"protocol.extractor[{seen.identity}]"] == seen.sha256
    assert "no rounding" in decides["protocol.lpips"]
    assert decides["protocol.psnr reference"].startswith("Adams-Bashforth-Moulton")
    assert f"distances in them are {name}" in ended.out
    table = command("table", tmp_path / "s", "--metric", name)
    assert table.code == 0, table.err
    assert f"{values.mean():.4f}" in table.out


def test_either_file_decides_the_name(files, monkeypatch, tmp_path):
    assert [parse_metric(text, "").name(4) for text in ("lpips", "lpips[lpips-vgg16]")] == ["lpips"] * 2
    names = ("lpips-vgg16", "vgg16")
    for known, told in ((names, False), (names[:1], True), (names[1:], True)):
        monkeypatch.setattr(
            "fastsample.bench.metrics.lpips.unpublished",
            lambda name, file, known=known: "" if name in known else unpublished(name, file),
        )
        seen = lpips_on_vgg16(dict(zip(names, files, strict=True)), CPU)
        assert (seen.identity != "lpips-vgg16") == told


def test_its_form_on_the_embedded_classifier_has_a_name_of_its_own(coarse, tmp_path):
    """With a distance of its features in one run: one extractor, one hash."""
    ended, (row,) = bench(tmp_path, "--model", MODEL, "--metrics", "lpips[cifar10-resnet],fd")
    assert ended.code == 0, ended.err
    with torch.inference_mode():
        values = FeatureDistance(load_model("cifar10-resnet")[0])(*pair())
    assert row.metrics["lpips[cifar10-resnet]"] == pytest.approx(values.mean().item(), rel=1e-6)
    assert "lpips" not in row.metrics
    assert [kind_of(name) for name in ("lpips", "lpips[cifar10-resnet]")] == ["lpips", "lpips[cifar10-resnet]"]
    assert "fd[cifar10-resnet]@4" in row.metrics
    assert row.protocol["extractor[cifar10-resnet]"] == Tools(Sampler(CPU)).extractor("cifar10-resnet").sha256
    assert "lpips[network] is its form without its learned weights" in ended.out


def test_without_its_files_the_others_go_on_and_one_line_says_where_they_would_be(files, coarse, monkeypatch, tmp_path):
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for words, missing in (((), "vgg16-397923af.pth"), (given(files)[2:], "weights-vgg16-lpips.pth")):
        ended, rows = bench(tmp_path, "--model", MODEL, "--metrics", "lpips,psnr", *words)
        assert ended.code == 0, ended.err
        assert [name for row in rows for name in row.metrics if name.startswith("lpips")] == []
        (line,) = [line for line in ended.out.splitlines() if line.startswith("without lpips")]
        assert f"are not at {hub / missing}; put https://" in line
        assert line.endswith("lpips[cifar10-resnet], its form alone, needs no file.")
    hub.mkdir(parents=True)
    for file, name in zip(files, ("weights-vgg16-lpips.pth", "vgg16-397923af.pth"), strict=True):
        (hub / name).write_bytes(file.read_bytes())
    ended, rows = bench(tmp_path, "--model", MODEL, "--metrics", "lpips,psnr")
    assert any("lpips" in row.protocol for row in rows), ended.out


@pytest.mark.parametrize("name", ["lpips-vgg16", "vgg16"])
def test_no_file_is_executed(name, files, tmp_path):
    for kind, data in hostile(tmp_path / "canary"):
        (tmp_path / "weights.pth").write_bytes(data)
        parts = dict(zip(("lpips-vgg16", "vgg16"), files, strict=True)) | {name: tmp_path / "weights.pth"}
        with pytest.raises(ValueError, match=r"weights\.pth"):
            lpips_on_vgg16(parts, CPU)
        assert not (tmp_path / "canary").exists(), kind


@pytest.mark.parametrize(
    ("metric", "model", "told"),
    [
        ("lpips", "small", "LPIPS halves images four times, and these are of 8x8"),
        ("lpips", "gmm2d", "its samples are no colour images"),
        ("lpips[cifar10-resnet]", "small", "cifar10-resnet is a classifier of 32x32 images"),
    ],
)
def test_images_that_it_says_nothing_about(metric, model, told, checkpoint, coarse, tmp_path):
    model = checkpoint("small") if model == "small" else model
    ended, (row,) = bench(tmp_path, "--model", model, "--metrics", f"{metric},truncation")
    assert ended.code == 0, ended.err
    assert told in ended.out
    assert {*row.metrics} == {"truncation", "psnr_reference"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metrics", "lpips[vgg16]"), "lpips is on VGG-16, or lpips[cifar10-resnet] in its form, and not on vgg16"),
        (("--metrics", "psnr", "--extractor-weights", "lpips-vgg16=x"), "no metric in the features of lpips-vgg16"),
        (("--metrics", "lpips", "--extractor-weights", "vgg16=/nowhere"), "the weights of vgg16 are not at /nowhere"),
        (("--metrics", "psnr", "--inception-weights", "x"), "is for fid and fid-inf and sfid, and none of them is"),
    ],
)
def test_what_is_asked_wrongly_is_told(words, told, tmp_path):
    ended, _ = bench(tmp_path, "--model", MODEL, *words)
    assert ended.code == 2
    assert told in ended.err


def test_its_features_have_it_as_their_square_distance(files):
    a, b = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for seen in (
        lpips_on_vgg16(dict(zip(("lpips-vgg16", "vgg16"), files, strict=True)), CPU),
        lpips_of(open_network("cifar10-resnet", CPU)),
    ):
        with torch.inference_mode():
            found = (seen.features(a) - seen.features(b)).square().sum(1)
            assert torch.allclose(found, seen.distance(a, b), rtol=1e-4, atol=1e-6)
            assert found.min() > 1e-3
