"""A model of each family against the reference set of its data: a published checkpoint and statistics to a FID."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.extractor_weights import INCEPTION
from fastsample.bench.metrics.extractor_weights import published as published_files
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.datasets.home import sha256_of
from fastsample.results.store import Store

from ..command import command
from .test_public import ADM, autoencoder, ddim, dit, edm, guided_diffusion, plain, write_card
from .test_public_guides import strong as edm2

REAL = torch.randint(0, 40, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def celeba():
    """DDIM's card names statistics of pytorch-fid; this one has its own."""
    like, changes, file = ddim()
    return like, changes | {"reference": "celeba64"}, file


def lsun():
    return plain("adm-bedroom", ADM)


# Forms of reference statistics as they are published.


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def edm_npz(stats):
    return npz(mu=stats["mu"], sigma=stats["sigma"])


def adm_batch(stats):
    spatial = {"mu_s": np.zeros(2023), "sigma_s": np.eye(2023, dtype=np.float32)}
    return npz(arr_0=REAL.permute(0, 2, 3, 1).numpy(), **stats, **spatial)


def edm2_pickle(stats):
    return pickle.dumps({"fid": stats, "fd_dinov2": {"mu": np.zeros(4), "sigma": np.eye(4)}})


FAMILIES = [
    ((edm,), [], "edm-cifar10", edm_npz),
    ((celeba,), [], "celeba64", edm_npz),
    ((lsun,), [], "adm-lsun-bedroom256", adm_batch),
    ((guided_diffusion,), [], "adm-imagenet64", adm_batch),
    ((edm2,), [], "edm2-img64", edm2_pickle),
    ((dit, autoencoder), ["--cfg", "1.5", "--labels", "balanced"], "adm-imagenet256", adm_batch),
]


@pytest.fixture(scope="module")
def inception(inception_weights):
    """torch-fidelity's own extractor, and the statistics of the real images by it."""
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_weights))

    @torch.inference_mode()
    def statistics(images):
        return fid_features_to_statistics(network(images)[0])

    return statistics, statistics(REAL)


@pytest.fixture
def published(server, listed, monkeypatch, inception_weights):
    """The known files of statistics, all of them on this machine; the weights of Inception count as published."""
    as_if = published_files()[INCEPTION]._replace(sha256=sha256_of(inception_weights))
    monkeypatch.setitem(published_files(), INCEPTION, as_if)
    port = server.server_address[1]
    listed.append(listed[0]._replace(id="celeba64", data="celeba", preprocessing="celeba64-ddim"))
    listed[:] = [entry._replace(url=f"http://127.0.0.1:{port}/{entry.id}/statistics", file="") for entry in listed]
    return server


def images_of(request):
    """Its samples as EDM, DiT and torchvision write them."""
    (cell,), _ = plan_cells(request, ())
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        images = sampler.images(cell, sampler.sample(cell, list(range(request.samples)))[0])
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("forms", "protocol", "reference", "layout"), FAMILIES, ids=[family[0][0].__name__ for family in FAMILIES]
)
def test_fid_is_that_of_torch_fidelity(
    forms, protocol, reference, layout, published, inception, inception_weights, tmp_path, coarse
):
    """First without the file of the reference: the other metrics, and a line that says how to get it."""
    statistics, real = inception
    model = f"{write_card(tmp_path, published, *forms)}#{forms[0].__name__.replace('_', '-')}"
    words = ["bench", "--model", model, "--solver", "dpmpp-2m", "--nfe", 3, "--samples", 8, "--metrics", "fid,psnr"]
    words += [*protocol, "--inception-weights", inception_weights, "--out", tmp_path / "store"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    (without,) = Store(tmp_path / "store").rows()
    assert {name.partition("_")[0] for name in without.metrics} == {"psnr"}
    (line,) = [line for line in ended.out.splitlines() if line.startswith("without fid")]
    assert f"the reference {reference} could not be fetched: the server answers 404" in line

    published.files[f"/{reference}/statistics"] = layout(real)
    assert command(*words).code == 0
    (row,) = [row for row in Store(tmp_path / "store").rows() if "fid@8" in row.metrics]
    guided = {"guidance": 0.5, "labels": "balanced"} if protocol else {}
    made = statistics(images_of(Request(model=model, solver="dpmpp-2m", nfe=3, samples=8, **guided)))
    theirs = fid_statistics_to_metric(made, real, False)["frechet_inception_distance"]
    assert row.metrics["fid@8"] == pytest.approx(theirs, rel=1e-6)
    file = tmp_path / "home" / "references-published" / reference / "statistics"
    assert row.protocol["reference[inception-v3-compat]"] == f"{reference} sha256 {sha256_of(file)[:16]}"


def test_statistics_by_another_inception_are_refused_by_name(published, listed, inception_weights, tmp_path, coarse):
    """As DDIM's card names, and Score-SDE's; those also as a file."""
    stats = edm_npz({"mu": np.zeros(4), "sigma": np.eye(4)})
    features = npz(pool_3=np.random.default_rng(0).random((9, 4), np.float32))
    published.files |= {"/dpm-solver-celeba64/statistics": stats, "/score-sde-cifar10/statistics": features}
    (tmp_path / "downloaded.npz").write_bytes(features)
    (tmp_path / "fid_stats_cifar10_train_pytorch.npz").write_bytes(stats)
    listed.append(listed[0]._replace(id="pytorch", file="fid_stats_cifar10_train_pytorch.npz", extractor="pytorch-fid"))
    words = ["bench", "--model", write_card(tmp_path, published, ddim), "--nfe", 3, "--samples", 8, "--out"]
    words += [tmp_path / "store", "--inception-weights", inception_weights, "--metrics", "fid,kid,psnr"]
    for given, title, extractor in (
        ([], "dpm-solver-celeba64", "pytorch-fid"),
        (["--reference", "score-sde-cifar10"], "score-sde-cifar10", "tfhub-inception"),
        (["--reference", tmp_path / "downloaded.npz"], "downloaded.npz", "tfhub-inception"),
        (["--reference", tmp_path / "fid_stats_cifar10_train_pytorch.npz"], "fid_stats_cifar10", "pytorch-fid"),
    ):
        ended = command(*words, *given)
        assert ended.code == 0, ended.err
        (line,) = [line for line in ended.out.splitlines() if line.startswith("without fid")]
        assert f"{title}" in line
        assert f"holds features of {extractor}, from which a distance of those of inception-v3-compat means" in line
    rows = Store(tmp_path / "store").rows()
    assert {name.partition("_")[0] for row in rows for name in row.metrics} == {"psnr"}


def test_references_that_are_damaged_or_do_not_fit_end_in_a_sentence(published, inception_weights, tmp_path, coarse):
    moments = npz(mu=np.zeros(192), sigma=np.eye(192))
    files = {"cut": moments[:-100], "narrow": moments, "html": b"<html>moved</html>"}
    for name, content in files.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    Image.fromarray(REAL[0].permute(1, 2, 0).numpy()).save(tmp_path / "one.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "one.png").rename(tmp_path / "one" / "1.png")
    words = ["bench", "--model", write_card(tmp_path, published, ddim), "--nfe", 3, "--samples", 8, "--out"]
    words += [tmp_path / "store", "--metrics"]
    weights = ["--inception-weights", inception_weights]
    for metric, given, told in (
        ("fid", tmp_path / "cut.npz", "a zip file (an npz is one) that is cut off or damaged"),
        ("fid", tmp_path / "narrow.npz", "narrow.npz holds 192 features, where inception-v3-compat makes 2,048"),
        ("fid", tmp_path / "html.npz", "is no pickle"),
        ("fd[efficientnet-lite0]", tmp_path / "narrow.npz", "narrow.npz has no images"),
    ):
        ended = command(*words, f"{metric},psnr", "--reference", given, *(weights if metric == "fid" else []))
        assert ended.code == 0, ended.err
        (line,) = [line for line in ended.out.splitlines() if line.startswith(f"without {metric.partition('[')[0]}")]
        assert told in line
    ended = command(*words, "fid", "--reference", f"folder:{tmp_path / 'one'}", *weights)
    assert (ended.code, "1 images have no covariance" in ended.err) == (2, True)
