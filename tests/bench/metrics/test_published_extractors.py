"""torch-fidelity's extractors with files that are read here: the same numbers, and nothing is fetched or run."""

import socket
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, convert_weights
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.utils import create_feature_extractor

from fastsample.bench.metrics.extractors import extractor_named, known_extractors, layer_for
from fastsample.bench.metrics.features import open_network
from fastsample.bench.metrics.frechet import features_distance, symmetric_root
from fastsample.datasets.home import sha256_of
from fastsample.models.networks.dinov2 import DinoV2
from fastsample.results.store import Store

from ...command import command
from .test_weights import hostile

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No network, and an empty hub."""

    def refused(*_, **__):
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(torch.hub, "load", refused)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


class Clip(CLIPVisual):
    """The whole of CLIP as far as its file tells it: its image encoder in half precision, and what is left out."""

    def __init__(self, layers, width, patch, side=224, embed=512):
        super().__init__(embed, side, layers, width, patch)
        self.text_projection = nn.Parameter(torch.randn(width, embed))
        self.register_buffer("input_resolution", torch.tensor(side))
        convert_weights(self)

    def forward(self, x):
        return x @ self.text_projection


def saved(network, file, scripted=False):
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scripted:
            torch.jit.save(torch.jit.trace(network, torch.ones(1, network.text_projection.shape[0])), file)
        else:
            torch.save(network.state_dict(), file)
    return file


def small_dinov2(network):
    """Weights that make differences between images visible."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim == 1 else 0.05)
    return network.eval()


def agree(name, file, theirs, layer):
    """Frechet and kernel distance of two halves of images, from their files to numbers on both sides."""
    ours = open_network(name, CPU, file)
    found, logits = ours(IMAGES)
    assert np.shares_memory(found, logits)  # no extractor of these has a layer of its own for the Inception score
    with torch.inference_mode():
        told = theirs(IMAGES)[theirs.features_list.index(layer)]
    found, told = found[:, :512], told[:, :512]  # those of ViT-B; eigenvalues of more take long
    made, real = (fid_features_to_statistics(half) for half in told.split(12))
    wanted = fid_statistics_to_metric(made, real, False)["frechet_inception_distance"]
    moments = real["mu"].astype(np.float64), symmetric_root(real["sigma"].astype(np.float64))
    assert features_distance(found[:12], moments) == pytest.approx(wanted, rel=1e-6)
    kid = partial(kid_features_to_metric, kid_subset_size=6, kid_subsets=4, verbose=False)
    assert kid(*torch.from_numpy(found).split(12)) == pytest.approx(kid(*told.split(12)), rel=1e-6)
    assert ours.identity.startswith(f"{name}:")  # the weights are not the published ones


def test_all_that_torch_fidelity_registers_are_known():
    known = known_extractors()
    assert {"cifar10-resnet", "inception-v3-compat", "vgg16", "clip-rn50", "dinov2-vit-g-14", "dinov2-edm2"} < {*known}
    assert known[:2] == ["cifar10-resnet", "efficientnet-lite0"]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("clip-vit-b-32", lambda: Clip(2, 128, 32, 64, 32)),
        ("clip-rn50", lambda: Clip((1, 1, 1, 1), 8, None, 64, 16)),
        pytest.param("clip-vit-b-32", lambda: Clip(12, 768, 32), marks=pytest.mark.slow, id="clip-vit-b-32 whole"),
    ],
)
def test_clip_is_that_of_torch_fidelity(name, make, tmp_path):
    torch.manual_seed(0)
    network = make().eval()
    file = saved(network, tmp_path / "clip.pt", scripted=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = create_feature_extractor(
            name, ["clip"], cuda=False, verbose=False, feature_extractor_weights_path=str(file)
        )
    agree(name, file, theirs, "clip")
    torch.save(network.state_dict(), tmp_path / "clip.pth")  # and of a state dict
    again = extractor_named(name, ["clip"], CPU, tmp_path / "clip.pth")
    torch.testing.assert_close(again(IMAGES[:2])[0], theirs(IMAGES[:2])[0], rtol=0, atol=0)


@pytest.mark.slow
def test_dinov2_is_that_of_torch_fidelity_around_its_network(tmp_path, monkeypatch):
    network = small_dinov2(DinoV2(384, 12, 6))
    file = saved(network, tmp_path / "dinov2.pth")
    monkeypatch.setattr(torch.hub, "load", lambda *_: network)
    theirs = create_feature_extractor("dinov2-vit-s-14", ["dinov2"], cuda=False, verbose=False)
    agree("dinov2-vit-s-14", file, theirs, "dinov2")


@pytest.mark.parametrize("name", ["vgg16", "clip-vit-b-32", "dinov2-vit-s-14", "dinov2-edm2"])
def test_no_file_is_executed(name, tmp_path):
    for kind, data in hostile(tmp_path / "canary"):
        (tmp_path / "weights.pth").write_bytes(data)
        with pytest.raises(ValueError, match=r"weights\.pth"):
            extractor_named(name, [layer_for(name, "fid")], CPU, tmp_path / "weights.pth")
        assert not (tmp_path / "canary").exists(), kind


def test_a_torchscript_archive_is_read_without_its_code(tmp_path):
    class Evil(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        @torch.jit.export
        def __getstate__(self):
            return self.weight, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, bool]):
            raise ValueError("run")

        def forward(self, x):
            return x * self.weight

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Evil()), tmp_path / "evil.pt")
        with pytest.raises(Exception, match="run"):
            torch.jit.load(tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt") as error:
        extractor_named("clip-vit-b-32", ["clip"], CPU, tmp_path / "evil.pt")
    assert "run" not in str(error.value)


BENCH = ("bench", "--model", "gmm-image", "--solver", "euler", "--nfe", "1", "--samples", "12")


def test_without_the_weights_the_others_go_on_and_one_line_says_where_they_would_be(tmp_path):
    asked = "psnr,fd[dinov2-vit-l-14],kid[clip-vit-b-32],fd[vgg16]"
    ended = command(*BENCH, "--metrics", asked, "--reference-steps", "20", "--out", tmp_path / "s")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.startswith("without")]
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    for line, (name, file) in zip(
        lines,
        {
            "dinov2-vit-l-14": "dinov2_vitl14_pretrain.pth",
            "clip-vit-b-32": "clip-vit-b-32-40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af.pt",
            "vgg16": "vgg16-397923af.pth",
        }.items(),
        strict=True,
    ):
        assert f"[{name}]: the weights of {name} are not at {hub / file}" in line
    (row,) = Store(tmp_path / "s").rows()
    assert {key.partition("[")[0] for key in row.metrics} == {"psnr", "psnr_median", "psnr_pooled", "psnr_reference"}


def test_distances_in_any_of_them_are_in_rows(tmp_path):
    torch.manual_seed(0)
    file = saved(Clip(2, 128, 32, 64, 32), tmp_path / "clip.pt", scripted=True)
    weights = ("--extractor-weights", f"clip-vit-b-32={file}")
    packed = tmp_path / "few.npz"
    np.savez(packed, arr_0=IMAGES.permute(0, 2, 3, 1).numpy())
    made = ("reference", "make", f"folder:{packed}", "--extractor", "clip-vit-b-32", *weights)
    assert command(*made, "-o", tmp_path / "moments.npz").code == 0
    asked = "fd[clip-vit-b-32],kid[clip-vit-b-32],is[clip-vit-b-32],recall[clip-vit-b-32]"
    ended = command(*BENCH, *weights, "--metrics", asked, "--reference", f"folder:{packed}", "--out", tmp_path / "s")
    assert ended.code == 0, ended.err
    (row,) = Store(tmp_path / "s").rows()
    called = f"[clip-vit-b-32:{sha256_of(file)[:8]}]"
    assert {*row.metrics} == {f"{kind}{called}@12" for kind in ("fd", "kid", "is", "recall")}
    assert {f"extractor{called}", f"reference{called}"} < {*row.protocol}
    with np.load(tmp_path / "moments.npz") as moments:
        found = open_network("clip-vit-b-32", CPU, file)(IMAGES)[0]
        np.testing.assert_allclose(moments["mu"], found.mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["vgg16", "clip-vit-b-32", "dinov2-vit-s-14"])
def test_weights_of_something_else_are_told_in_one_line(name, tmp_path):
    torch.save({"fc.bias": torch.zeros(2)}, tmp_path / "other.pth")
    given = ("--extractor-weights", f"{name}={tmp_path / 'other.pth'}")
    ended = command(*BENCH, "--metrics", f"is[{name}]", *given, "--out", tmp_path / "s")
    assert ended.code == 2
    assert "other.pth does not fit" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vgg16"], "takes NAME=FILE"),
        (["vgg16=a", "--extractor-weights", "vgg16=b"], "vgg16 has two files, a and b"),
        (["vgg16=a"], "no metric in the features of vgg16 is asked for"),
    ],
)
def test_the_option_is_refused_where_it_means_nothing(words, told, tmp_path):
    ended = command(*BENCH, "--metrics", "curvature", "--extractor-weights", *words, "--out", tmp_path / "s")
    assert ended.code == 2
    assert told in ended.err
