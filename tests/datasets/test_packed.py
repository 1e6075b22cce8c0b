"""Images in one array of an npz."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 10, 3), dtype=np.uint8)
IDS = np.array([3, 1, 0, 3, 2, 2, 9])


def opened(file, recipe=""):
    return dataset_named(f"folder:{file}{recipe}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("pixels", [PIXELS, np.asfortranarray(PIXELS)], ids=["rows", "columns"])
def test_it_is_a_data_set(save, pixels, tmp_path):
    save(tmp_path / "a.npz", pixels, IDS)
    data = opened(tmp_path / "a.npz")
    assert (data.name, len(data), data.labels.tolist()) == ("folder:a.npz", 7, IDS.tolist())
    batches = list(data.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert all(batch.is_contiguous() for batch in batches)
    np.testing.assert_array_equal(torch.cat(batches).permute(0, 2, 3, 1), PIXELS)
    np.testing.assert_array_equal(torch.stack(list(data)).permute(0, 2, 3, 1), PIXELS)
    whole = data.loaded()
    assert whole.sha256 == whole.__class__("x", "x", torch.cat(batches), data.labels).sha256
    assert torch.equal(whole.signal(torch.tensor([2, 0])), torch.cat(batches)[[2, 0]].float() / 127.5 - 1)


def test_recipes_and_other_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=PIXELS, mu=np.zeros(3), sigma=np.eye(3))
    assert opened(tmp_path / "a.npz").labels.tolist() == [0] * 7
    assert opened(tmp_path / "a.npz", "@imagenet64-edm").loaded().images.shape == (7, 3, 64, 64)
    with pytest.raises(DatasetError, match=r"a\.npz, image 0: the image is 10x8, not 178x218"):
        opened(tmp_path / "a.npz", "@celeba64-ddim").loaded()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the mapped files from /proc")
def test_what_is_stored_as_it_is_stays_in_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", PIXELS)
    images = opened(tmp_path / "a.npz").loaded().images
    *_, start = (line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/a.npz"))
    low, high = (int(place, 16) for place in start.split()[0].split("-"))
    assert low < images.data_ptr() < high


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([PIXELS.transpose(0, 3, 1, 2)], r"arr_0 is uint8 \[7, 3, 8, 10\], not images, uint8 \[n, h, w, 3\]"),
        ([PIXELS[..., :1]], "not images"),
        ([PIXELS / 255], "arr_0 is float64"),
        ([PIXELS[:0]], "not images"),
        ([PIXELS[0]], "not images"),
        ([np.uint8(3)], "not images"),
        ([np.array([{}, print])], "Python objects"),
        ([PIXELS, IDS[:5]], r"arr_1 is int64 \[5\], not classes 0, 1, 2, ... of 7 images"),
        ([PIXELS, -IDS], "not classes"),
        ([PIXELS, IDS / 2], "arr_1 is float64"),
        ([PIXELS, np.eye(7, dtype=int)], "not classes"),
        ([PIXELS, IDS.astype(np.uint64) + 2**63], "not classes"),
        ([PIXELS, np.array([None] * 7)], "Python objects"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_other_arrays_are_refused(save, arrays, message, tmp_path):
    save(tmp_path / "a.npz", *arrays)
    with pytest.raises(DatasetError, match=rf"a\.npz: .*{message}"):
        opened(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_named(save, tmp_path):
    save(tmp_path / "a.npz", np.tile(PIXELS, (20, 8, 8, 1)))
    whole = (tmp_path / "a.npz").read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for name, content in {"cut.npz": whole[:-100], "changed.npz": changed}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=name):
            opened(tmp_path / name).loaded()


def test_an_array_that_claims_more_than_it_has(tmp_path):
    head = io.BytesIO()
    shape = (10**9, 64, 64, 3)
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", kind) as archive:
            archive.writestr("arr_0.npy", head.getvalue() + bytes(1000))
        with pytest.raises(DatasetError, match=r"a\.npz: arr_0\.npy claims the shape"):
            opened(tmp_path / "a.npz")
