"""CMMD through the command line: embeddings as its authors make them, and their estimator of MMD^2."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, build_model, convert_weights

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics import kernel
from fastsample.bench.metrics.extractors import extractor_named, weights_sha256
from fastsample.bench.metrics.kernel import mmd
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.datasets.home import sha256_of
from fastsample.datasets.levels import to_uint8
from fastsample.results.metrics import parse_metric
from fastsample.results.store import Store

from ...command import command
from ...measuring import measure_of

REAL = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small CLIP of 28x28 images in OpenAI's names."""
    torch.manual_seed(0)
    network = CLIPVisual(16, 28, 2, 128, 14)
    network.text_projection = nn.Parameter(torch.zeros(4, 16))
    convert_weights(network)
    file = tmp_path_factory.mktemp("clip") / "clip.pth"
    torch.save(network.state_dict(), file)
    return file


def embeddings(images, file):
    """As cmmd/io_util.py and cmmd/embedding.py: the middle square, Pillow's bicubic, 1/255, normalised, unit length."""
    network = build_model(torch.load(file), torch.float32)
    found = []
    for image in images.permute(0, 2, 3, 1).numpy():
        whole = Image.fromarray(image)
        (w, h), side = whole.size, min(whole.size)
        left, top = (w - side) // 2, (h - side) // 2
        small = whole.crop((left, top, left + side, top + side)).resize((28, 28), Image.BICUBIC)
        x = (np.asarray(small, np.float32) / 255 - np.array(MEAN)) / np.array(DEVIATION)
        with torch.inference_mode():
            embedding = network.visual(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0].numpy()
        found.append(embedding / np.linalg.norm(embedding))
    return np.stack(found)


def published(x, y):
    """cmmd/distance.py, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    gamma = 1 / (2 * 10**2)

    def kernel(a, b):
        norms = np.diag(a @ a.T)[:, None] + np.diag(b @ b.T)[None, :]
        return np.mean(np.exp(-gamma * (-2 * a @ b.T + norms)))

    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


def test_mmd_is_that_of_its_authors_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(11, 5)).astype(np.float32), rng.normal(0.5, 2, size=(7, 5)).astype(np.float32)
    for block in (1, 4, 100):
        monkeypatch.setattr(kernel, "_BLOCK", block)
        assert mmd(x, y) == pytest.approx(published(x, y), rel=1e-12)
    assert mmd(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 40, 40), (3, 31, 44), (3, 45, 30)])
def test_embeddings_are_those_of_its_authors(shape, clip):
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (found,) = extractor_named("clip-cmmd", ["clip"], "cpu", clip)(images)
    np.testing.assert_allclose(found, embeddings(images, clip), rtol=1e-5, atol=1e-6)


def bench(folder, *words):
    ended = command("bench", "--solver", "euler", "--nfe", 2, "--samples", 6, "--reference-steps", 20, "--out",
                    folder / "s", *words)  # fmt: skip
    return ended, Store(folder / "s").rows()


@pytest.mark.parametrize("name", ["clip-cmmd", "clip-vit-l-14-336px"])
def test_cmmd_of_a_model_is_that_of_its_authors(name, checkpoint, clip, tmp_path):
    """Weights are given by its own name, or by that of the CLIP they are of."""
    np.savez(tmp_path / "real.npz", arr_0=REAL.permute(0, 2, 3, 1).numpy())
    model = checkpoint("small")
    words = ["--model", model, "--reference", f"folder:{tmp_path / 'real.npz'}", "--metrics", "cmmd"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is divided by zero
        ended, (row,) = bench(tmp_path, *words, "--extractor-weights", f"{name}={clip}")
    assert ended.code == 0, ended.err
    (cell,), _ = plan_cells(Request(model=model, solver="euler", nfe=2, samples=6), ())
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        images = to_uint8(sampler.images(cell, sampler.sample(cell, list(range(6)))[0]))
    called = f"clip-cmmd:{sha256_of(clip)[:8]}"  # the weights are not the published ones
    wanted = published(embeddings(images, clip), embeddings(REAL, clip))
    assert row.metrics == {f"cmmd[{called}]@6": pytest.approx(wanted, rel=1e-6)}
    assert row.protocol[f"extractor[{called}]"] == weights_sha256(extractor_named("clip-cmmd", ["clip"], "cpu", clip))
    assert f"real.npz train@clip-cmmd n={len(REAL)}" in row.protocol[f"reference[{called}]"].replace("-train", " train")
    assert f"distances in them are cmmd[{called}]" in ended.out
    assert parse_metric("cmmd", "").name(6) == "cmmd@6"


def test_without_weights_or_images_the_others_go_on_and_one_line_says_why(checkpoint, clip, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    np.savez(tmp_path / "moments.npz", mu=np.zeros(4), sigma=np.eye(4))
    model = checkpoint("small", data="cifar10 train")
    for words, told in (
        ([], "the weights of clip-cmmd are not at"),
        (["--extractor-weights", f"clip-cmmd={clip}", "--reference", tmp_path / "moments.npz"], "has no images"),
    ):
        ended, rows = bench(tmp_path, "--model", model, "--metrics", "cmmd,truncation", *words)
        assert ended.code == 0, ended.err
        (line,) = [line for line in ended.out.splitlines() if line.startswith("without cmmd")]
        assert told in line
        assert {*rows[-1].metrics} == {"truncation", "psnr_reference"}


def test_a_lossy_set_makes_a_cmmd_as_it_makes_a_kid():
    """No name says that the set is the standard one, as that of a FID does."""
    (cell,), _ = plan_cells(Request(model="cifar10-tiny-flow", solver="euler", nfe=2, samples=6), ())
    assert measure_of("cmmd").why_not(cell) == ("", "")
    _, why = measure_of("sfid").why_not(cell)
    assert "is lossy, and a distance to it is no FID but fd[inception-v3-spatial]" in why
