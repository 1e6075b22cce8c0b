"""The shipped photographs, the packed format's checks, and the errors of the registry."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named, dataset_names
from fastsample.datasets.sets import cifar10 as module


@pytest.fixture(scope="module")
def photographs():
    return dataset_named("cifar10-jpeg", "test")


def test_the_shipped_split_is_whole(photographs):
    assert photographs.images.shape == (10_000, 3, 32, 32)
    assert photographs.images.dtype == torch.uint8
    assert len(photographs) == 10_000
    assert torch.equal(photographs.labels, torch.arange(10_000) % 10)
    mean = photographs.images.double().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.49407, 0.48506, 0.45038]).double(), atol=2e-4, rtol=0)


def test_both_splits_ship():
    for split, (_, sha256) in module._JPEG_FILES.items():
        file = Path(module.__file__).parents[1] / "data" / f"cifar10_jpeg_{split}.npz"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256


@pytest.mark.slow  # decodes 50,000 images
def test_the_shipped_training_split_is_whole():
    images = dataset_named("cifar10-jpeg", "train")
    assert images.images.shape == (50_000, 3, 32, 32)
    assert torch.equal(images.labels, torch.arange(50_000) % 10)
    mean = images.images.double().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.49125, 0.48209, 0.44652]).double(), atol=2e-4, rtol=0)


def test_items_are_what_torch_fidelity_asks_for(photographs):
    assert photographs[3].shape == (3, 32, 32)
    assert photographs[3].dtype == torch.uint8


def test_cifar10_is_read_from_torchvision(monkeypatch, tmp_path):
    class Cifar10:
        def __init__(self, root, train, download):
            assert (root, train, download) == (str(tmp_path), False, False)
            self.data = np.arange(2 * 32 * 32 * 3, dtype=np.uint8).reshape(2, 32, 32, 3)
            self.targets = [7, 2]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Cifar10)
    data = dataset_named("cifar10", "test", tmp_path)
    assert data.images.shape == (2, 3, 32, 32)
    assert data.images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert data.labels.tolist() == [7, 2]


def test_missing_data_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    with pytest.raises(DatasetError, match="cifar-10-batches-py"):
        dataset_named("cifar10")
    with pytest.raises(DatasetError, match=str(tmp_path / "none.npz")):
        dataset_named("cifar10-jpeg", "train", tmp_path / "none.npz")


def test_damaged_files_of_cifar10_are_named(monkeypatch, tmp_path):
    folder, archive = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b cut")
    for place in (tmp_path, archive):
        with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz is cut, or not CIFAR-10 .*; fetch it again"):
            dataset_named("cifar10", path=place)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz is still packed; unpack it"):
        dataset_named("cifar10", path=tmp_path)
    folder.mkdir()
    with pytest.raises(DatasetError, match="cifar-10-batches-py/data_batch_1 is not there"):
        dataset_named("cifar10", path=tmp_path)
    (folder / "data_batch_1").write_bytes(b"cut")
    with pytest.raises(DatasetError, match="cifar-10-batches-py/data_batch_1 is damaged"):
        dataset_named("cifar10", path=tmp_path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b""])
@pytest.mark.parametrize("name", ["cifar10-jpeg", "digits"])
def test_a_web_page_in_the_place_of_a_pack_is_named(name, content, tmp_path):
    (tmp_path / "pack.npz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"pack\.npz is n"):
        dataset_named(name, path=tmp_path / "pack.npz")


def test_unknown_names_list_the_known_ones():
    assert {"cifar10", "cifar10-jpeg"} < set(dataset_names())
    with pytest.raises(DatasetError, match="cifar10, cifar10-jpeg"):
        dataset_named("cifar11")
    with pytest.raises(DatasetError, match="train, test"):
        dataset_named("cifar10-jpeg", "validation")


def test_another_file_is_refused(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(3))
    with pytest.raises(DatasetError, match="sha256"):
        dataset_named("cifar10-jpeg", "test", other)


def packed(size=(32, 32), mode="RGB", **changes):
    buffer = io.BytesIO()
    Image.new(mode, size, 90).save(buffer, "JPEG")
    jpeg = buffer.getvalue()[:-2]
    cut = jpeg.index(b"\xff\xda")
    scan = np.frombuffer(jpeg[cut:], np.uint8)
    arrays = {
        "header": np.frombuffer(jpeg[:cut], np.uint8),
        "scan": np.concatenate([scan, scan]),
        "offsets": np.array([0, len(scan), 2 * len(scan)], np.uint32),
        "labels": np.array([4, 5], np.uint8),
    }
    arrays.update(changes)
    out = io.BytesIO()
    np.savez(out, **{k: v for k, v in arrays.items() if v is not None})
    return out.getvalue()


def test_a_small_pack_is_decoded():
    images, labels = module._unpack_jpegs(packed(), "pack")
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [4, 5]
    assert torch.equal(images[0], images[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scan": None}, "not a packed JPEG set"),
        ({"header": np.zeros(4, np.uint8)}, "do not fit together"),
        ({"labels": np.zeros(3, np.uint8)}, "do not fit together"),
        ({"offsets": np.array([0, 9, 5], np.uint32)}, "do not fit together"),
        ({"size": (16, 32)}, "image 0 is"),
        ({"mode": "L"}, "image 0 is"),
        ({"scan": np.zeros(10, np.uint8), "offsets": np.array([0, 5, 10], np.uint32)}, "image 0 does not decode"),
    ],
)
def test_damaged_packs_are_refused(changes, message):
    with pytest.raises(DatasetError, match=message):
        module._unpack_jpegs(packed(**changes), "pack")
