"""Weights of extractors are read and never executed, and only those of the published file make a FID."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fastsample.bench.metrics import extractor_weights, features, reference
from fastsample.bench.metrics.extractor_weights import INCEPTION, published
from fastsample.bench.metrics.extractors import compute_reference, extractor_named
from fastsample.bench.metrics.features import open_extractor
from fastsample.bench.metrics.moments import Known
from fastsample.datasets.home import sha256_of
from fastsample.datasets.image_set import ImageDataset
from fastsample.results.metrics import parse_metric
from fastsample.results.store import Store

from ...command import command

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Touch:
    """Pickles as a call that makes the file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def hostile(canary):
    """(name, bytes) of files that touch the canary when they are loaded with all their code."""
    evil = {"fc.bias": torch.zeros(2), "fc.weight": Touch(canary)}
    yield "pickle", pickle.dumps(Touch(canary))
    for name, zipped in (("zip", True), ("legacy", False)):
        file = io.BytesIO()
        torch.save(evil, file, _use_new_zipfile_serialization=zipped)
        yield name, file.getvalue()
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touch(canary), 2))
        archive.writestr("archive/version", "3\n")
    yield "deflated", deflated.getvalue()


@pytest.fixture
def bench(monkeypatch, tmp_path, capfd):
    """A function that runs `fastsample bench` on the exact images; returns exit status and what it printed."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        given = ["bench", "--model", "gmm-image", "--solver", "euler", "--nfe", "1", "--samples", "12", "--out"]
        ended = command(*given, tmp_path / "store", *words)
        return ended.code, "".join(capfd.readouterr())

    return run


def test_the_attacks_are_real(tmp_path):
    for name, data in hostile(tmp_path / "canary"):
        if name == "deflated":
            continue
        (tmp_path / "file").write_bytes(data)
        load = pickle.loads if name == "pickle" else lambda raw: torch.load(io.BytesIO(raw), weights_only=False)
        load(data)
        assert (tmp_path / "canary").exists()
        (tmp_path / "canary").unlink()


@pytest.mark.parametrize("where", ["--inception-weights", "the hub's cache"])
def test_inception_weights_are_not_executed(where, bench, tmp_path):
    cache = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    file = tmp_path / "mine.pth" if where.startswith("--") else cache
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, data in hostile(tmp_path / "canary"):
        file.write_bytes(data)
        code, told = bench("--metrics", "fid", *([where, file] if where.startswith("--") else []))
        assert code == 2, (name, told)
        assert str(file) in told
        assert "Traceback" not in told
        assert not (tmp_path / "canary").exists(), name
    assert not list(tmp_path.rglob("rows/*.json"))


def test_no_other_extractor_executes_its_weights(monkeypatch, tmp_path):
    images = ImageDataset("noise", "test", IMAGES, torch.zeros(6, dtype=torch.int64))
    (tmp_path / "models").mkdir()
    package = tmp_path / "models" / "efficientnet-lite0-57934424.pth"
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(extractor_weights, "find_spec", lambda _: spec)
    for _, data in hostile(tmp_path / "canary"):
        package.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged: its sha256"):
            open_extractor("efficientnet-lite0", torch.device("cpu"))
        for name in ("cifar10-resnet", "efficientnet-lite0", "inception-v3-compat"):
            with pytest.raises(ValueError, match=package.name):
                compute_reference(images, name, weights=package)
        assert not (tmp_path / "canary").exists()
    with pytest.raises(ValueError, match="unknown feature extractor"):
        extractor_named("vgg61", ["features"])


def test_weights_that_do_not_fit_are_told_in_one_line(bench, tmp_path):
    torch.save({"fc.bias": torch.zeros(2)}, tmp_path / "other.pth")
    code, told = bench("--metrics", "fid", "--inception-weights", tmp_path / "other.pth")
    assert code == 2
    assert "other.pth does not fit inception-v3-compat" in told
    assert len(told.strip().splitlines()) == 1


def test_other_weights_have_another_name(inception_weights, bench, monkeypatch, tmp_path):
    # The moments of real images would take eigenvalues of 2048 x 2048, and are not needed.
    monkeypatch.setattr(reference, "moments_of_data", lambda *_: Known((), (), "cifar10 n=6"))
    monkeypatch.setattr(features.Extractor, "moments", None)
    found = torch.rand(12, 2048), torch.rand(12, 1008)  # names are asked for here, not numbers
    monkeypatch.setattr(FeatureExtractorInceptionV3, "forward", lambda *_: found)
    short = sha256_of(inception_weights)[:8]
    code, told = bench("--metrics", "is[inception-v3-compat]", "--inception-weights", inception_weights)
    assert code == 0, told
    assert f"the weights are not the published file; distances in them are fd[inception-v3-compat:{short}]" in told
    (row,) = Store(tmp_path / "store").rows()
    assert list(row.metrics) == [f"is[inception-v3-compat:{short}]@12"]
    assert {key for key in row.protocol if "[" in key} == {f"extractor[inception-v3-compat:{short}]"}
    assert "uint8" in row.protocol
    as_if = published()[INCEPTION]._replace(sha256=sha256_of(inception_weights))
    monkeypatch.setitem(published(), INCEPTION, as_if)
    code, told = bench("--metrics", "is[inception-v3-compat]", "--inception-weights", inception_weights)
    assert code == 0
    assert "not the published file" not in told
    assert sorted(name for row in Store(tmp_path / "store").rows() for name in row.metrics) == [
        f"is[inception-v3-compat:{short}]@12", "is[inception-v3-compat]@12",
    ]  # fmt: skip


def test_no_distance_under_other_weights_is_a_fid():
    for text in ("fid", "fid-inf", "fd[inception-v3-compat]", "kid[inception-v3-compat]"):
        metric = parse_metric(text, "cifar10-resnet")
        other = replace(metric, extractor=f"{metric.extractor}:1a2b3c4d").name(64)
        kind = text.partition("[")[0].replace("fid", "fd")
        assert other == f"{kind}[inception-v3-compat:1a2b3c4d]@64"
        assert metric.name(64) == f"{text}@64"
