"""sFID through the command line: the spatial features of guided diffusion's evaluator, against its form of a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics import extractor_weights, extractors
from fastsample.bench.metrics.extractors import INCEPTION, extractor_named
from fastsample.bench.metrics.features import open_network
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.datasets.home import sha256_of
from fastsample.datasets.levels import to_uint8
from fastsample.results.metrics import parse_metric
from fastsample.results.store import Store

from ...command import command

REAL = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SPATIAL = "inception-v3-spatial"


def evaluator(images, weights):
    """Features [n, 2023] as guided diffusion's evaluator keeps them: channels last, the first seven, flattened."""
    network, seen = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights)), []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *given: seen.append(given[2].clone()))
    with torch.inference_mode():
        network(images)
    (spatial,) = seen
    assert spatial.shape[1:] == (192, 17, 17)
    return spatial.permute(0, 2, 3, 1).numpy()[..., :7].reshape(len(images), -1).astype(np.float64)


def distance(x, y):
    """The Frechet distance of two sets, whose tr (S1 S2)^(1/2) is the nuclear norm of their centred product."""
    a, b = ((part - part.mean(0)) / np.sqrt(len(part) - 1) for part in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a * a) + np.sum(b * b) - 2 * cross


@pytest.fixture
def bench(inception_weights, checkpoint, monkeypatch, tmp_path):
    """A function that runs `bench` on a model of 8x8 images; the weights of Inception count as the published ones."""
    files = extractor_weights.published()
    mine = {name: files[name]._replace(sha256=sha256_of(inception_weights)) for name in (INCEPTION, SPATIAL)}
    monkeypatch.setattr(extractors, "published", lambda: files | mine)
    model = checkpoint("small")
    np.savez(tmp_path / "real.npz", arr_0=REAL.permute(0, 2, 3, 1).numpy())

    def run(*words):
        ended = command("bench", "--model", model, "--solver", "euler", "--nfe", 2, "--samples", 4, "--out",
                        tmp_path / "s", "--inception-weights", inception_weights, *words)  # fmt: skip
        return ended, Store(tmp_path / "s").rows()

    run.model = model
    return run


def test_sfid_is_that_of_guided_diffusions_evaluator(bench, inception_weights, tmp_path):
    made = ("reference", "make", f"folder:{tmp_path / 'real.npz'}", "--extractor", SPATIAL)
    ended = command(*made, "--inception-weights", inception_weights, "-o", tmp_path / "adm.npz")
    assert ended.code == 0, ended.err
    real = evaluator(REAL, inception_weights)
    with np.load(tmp_path / "adm.npz") as file:
        assert {name: file[name].shape for name in file} == {
            "mu": (2048,), "sigma": (2048, 2048), "mu_s": (2023,), "sigma_s": (2023, 2023),
        }  # fmt: skip
        np.testing.assert_allclose(file["mu_s"], real.mean(0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(file["sigma_s"], np.cov(real, rowvar=False), rtol=1e-4, atol=1e-6)
    ended, (row,) = bench("--metrics", "sfid", "--reference", tmp_path / "adm.npz")
    assert ended.code == 0, ended.err
    (cell,), _ = plan_cells(Request(model=bench.model, solver="euler", nfe=2, samples=4), ())
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        images = to_uint8(sampler.images(cell, sampler.sample(cell, list(range(4)))[0]))
    assert row.metrics == {"sfid@4": pytest.approx(distance(evaluator(images, inception_weights), real), rel=1e-6)}
    assert row.protocol[f"reference[{SPATIAL}]"] == f"adm.npz sha256 {sha256_of(tmp_path / 'adm.npz')[:16]}"
    sha256 = extractors.weights_sha256(extractor_named("inception-v3-compat", ["2048"], "cpu", inception_weights))
    assert row.protocol[f"extractor[{SPATIAL}]"] == sha256
    assert "sfid@4" in ended.out


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "no mu_s and sigma_s, which sFID is computed with; there are: mu, s"),
        ({"mu_s": np.zeros(7), "sigma_s": np.eye(7)}, "holds 7 features, where inception-v3-spatial makes 2,023"),
        ({"mu_s": np.zeros(2023)}, "no sigma_s, which"),
        ({"mu_s": np.zeros(3), "sigma_s": np.eye(4)}, r"mu is (3,) and sigma (4, 4)"),
    ],
)
def test_a_file_without_spatial_moments_makes_no_sfid_and_the_others_go_on(bench, arrays, told, tmp_path):
    np.savez(tmp_path / "other.npz", **arrays)
    ended, rows = bench("--metrics", "sfid,truncation", "--reference-steps", 20, "--reference", tmp_path / "other.npz")
    assert ended.code == 0, ended.err
    assert [{*row.metrics} for row in rows] == [{"truncation", "psnr_reference"}]
    (line,) = [line for line in ended.out.splitlines() if line.startswith("without sfid")]
    assert told in line


def test_other_weights_make_no_sfid(inception_weights):
    asked = parse_metric("sfid", "")
    assert asked.name(8) == "sfid@8"
    opened = open_network(SPATIAL, torch.device("cpu"), inception_weights)
    other = f"{SPATIAL}:{sha256_of(inception_weights)[:8]}"
    assert opened.identity == other
    assert replace(asked, extractor=other).name(8) == f"fd[{other}]@8"
