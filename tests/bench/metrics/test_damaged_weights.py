"""Files of an extractor that are no weights, or no moments: its own metrics are left out, in one sentence."""

import io
from dataclasses import replace

import pytest
import torch

from fastsample.bench.metrics import extractor_weights, moments
from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.moments import ReferenceStats, shipped_reference
from fastsample.results.store import Store

from ...command import command


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


WRONG = {
    "cut": (saved({"fc.bias": torch.zeros(9000)})[:-5000], "is a zip without its end, so cut short"),
    "page": (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
    "empty": (b"", "is an empty file"),
    "another": (saved({"fc.bias": torch.zeros(2)}), "does not fit inception-v3-compat"),
    "quota": (b'{"error": "quota"}', "is a text in JSON"),
    "noise": (bytes(range(256)) * 40, "pickle"),
    "folder": (None, "is a folder"),
}


@pytest.fixture
def bench(checkpoint, coarse, monkeypatch, tmp_path):
    """A function that runs `bench` on a small network of CIFAR-10 with its default metrics."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def run(*words, data="cifar10", size=8):
        model = checkpoint("small", data=f"{data} train", size=size)
        return command("bench", "--model", model, "--solver", "euler", "--nfe", "2", "--samples", "8", *words)

    monkeypatch.chdir(tmp_path)
    return run


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)


@pytest.mark.parametrize("kind", WRONG)
def test_a_default_bench_goes_without_fid(kind, bench, tmp_path):
    content, told = WRONG[kind]
    file = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    put(file, content)
    ended = bench("--out", "store")
    assert ended.code == 0, ended
    (line,) = (line for line in ended.out.splitlines() if str(file) in line)
    assert line.startswith("not measured: ")  # it is one of those that nobody named
    assert f"fid: {file}" in line
    assert told in line
    assert "; remove it and fetch it again" in line
    assert "Traceback" not in ended.out + ended.err
    (row,) = Store("store").rows()
    assert "psnr" in row.metrics


@pytest.mark.parametrize("kind", [*WRONG, "missing"])
def test_weights_that_are_given_are_refused(kind, bench, tmp_path):
    content, told = WRONG.get(kind, (b"", "given.pth"))
    if kind != "missing":
        put(tmp_path / "given.pth", content)
    ended = bench("--out", "store", "--metrics", "psnr,fid", "--inception-weights", tmp_path / "given.pth")
    assert ended.code == 2, ended
    (line,) = ended.err.strip().splitlines()
    assert told in line
    assert "given.pth" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [(WRONG["page"][0], "is a web page"), (b"\0" * 99, "is damaged: its sha256"), (None, "is a folder")],
)
def test_damaged_weights_of_efficientnet(content, told, bench, monkeypatch, tmp_path):
    file = tmp_path / "models" / "efficientnet-lite0-57934424.pth"
    put(file, content)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(extractor_weights, "find_spec", lambda _: spec)
    ended = bench("--out", "store", "--metrics", "psnr,fd[efficientnet-lite0]", data="cifar10-jpeg")
    assert ended.code == 0, ended
    (line,) = (line for line in ended.out.splitlines() if str(file) in line)
    assert line.startswith("without fd[efficientnet-lite0]: ")
    assert told in line
    assert "pip install --force-reinstall" in line


@pytest.mark.parametrize("damage", ["cut", "page"])
def test_damaged_moments_are_made_anew_and_said(damage, bench, monkeypatch, tmp_path):
    right = shipped_reference("cifar10-jpeg-train@cifar10-resnet")
    file = tmp_path / "moments.npz"
    right.save(file)
    file.write_bytes(file.read_bytes()[:-99] if damage == "cut" else WRONG["page"][0])
    monkeypatch.setattr(moments, "shipped_reference", lambda _: ReferenceStats.load(file))
    made = []
    monkeypatch.setattr(moments, "moments_of", lambda images, *_, **__: made.append(images) or replace(right, n=49_999))
    monkeypatch.setattr(moments, "dataset_named", lambda name, split: (name, split))
    ended = bench("--out", "store", "--metrics", "fd", data="cifar10-jpeg", size=32)
    assert ended.code == 0, ended
    (line,) = (line for line in ended.err.splitlines() if str(file) in line)
    assert line.endswith(": it is made anew")
    assert made == [("cifar10-jpeg", "train")]

    def absent(*_):
        raise DatasetError("the train split of cifar10-jpeg was not found at X;")

    (cached,) = (tmp_path / "home" / "reference").glob("*.npz")
    cached.write_bytes(b"")
    monkeypatch.setattr(moments, "dataset_named", absent)
    ended = bench("--out", "other", "--metrics", "psnr,fd", data="cifar10-jpeg", size=32)
    assert ended.code == 0, ended
    assert f"without fd: {cached} is not a file of reference statistics" in ended.out
    assert "to make it anew, the train split of cifar10-jpeg was not found" in ended.out
