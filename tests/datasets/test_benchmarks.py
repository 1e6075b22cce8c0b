"""The benchmarks' sets on small files of the published layouts, and image folders."""

import io
import struct
import sys
import zipfile
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from fastsample.datasets.benchmarks import BENCHMARKS
from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named, dataset_names
from fastsample.datasets.preprocessing import RECIPES


def encoded(level, size=(40, 40), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(out, kind)
    return out.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def levels(images):
    return [int(batch[0, 0, 0]) for part in images.batches(2) for batch in part]


def test_every_benchmark_is_named_and_says_what_is_missing():
    assert {"celeba64-ddim", "celebahq256", "ffhq64", "afhqv2-64", "lsun-bedroom256-adm", "lsun-church256-ldm"} < set(
        dataset_names()
    )
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.recipe in RECIPES
        if benchmark.source.folder == "lsun" and not find_spec("lmdb"):
            continue
        with pytest.raises(DatasetError, match=rf"{name} train: .*https://.*{benchmark.source.folder}"):
            dataset_named(name)
        with pytest.raises(DatasetError, match="has no split 'all'"):
            dataset_named(name, "all")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_celeba_is_split_by_its_partition(packed, tmp_path):
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 0\n")
    for n in range(1, 5):
        put(tmp_path / "img_align_celeba" / f"00000{n}.jpg", encoded(10 * n, (178, 218)))
    if packed:
        with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
            for file in sorted((tmp_path / "img_align_celeba").iterdir()):
                archive.write(file, f"img_align_celeba/{file.name}")
                file.unlink()
        (tmp_path / "img_align_celeba").rmdir()
    train = dataset_named("celeba64-ddim", "train", tmp_path)
    assert (len(train), levels(train)) == (2, [10, 40])
    assert train[1].shape == (3, 64, 64)
    assert levels(dataset_named("celeba64-140", "test", tmp_path)) == [30]


def test_imagenet_classes_are_the_sorted_folders(tmp_path):
    for level, name in enumerate(["n02/b.JPEG", "n01/z.JPEG", "n01/a.JPEG", "n03/sub/a.JPEG"]):
        put(tmp_path / "train" / name, encoded(level, (90, 70)))
    data = dataset_named("imagenet64-edm", "train", tmp_path)
    assert levels(data) == [2, 1, 0, 3]
    assert data.labels.tolist() == [0, 0, 1, 2]
    assert levels(dataset_named("imagenet64-adm", "train", tmp_path)) == [2, 1, 0, 3]
    with pytest.raises(DatasetError, match=r"test: .*val"):
        dataset_named("imagenet256-adm", "test", tmp_path)


def test_ffhq_has_no_classes(tmp_path):
    put(tmp_path / "00000" / "00000.png", encoded(1))
    put(tmp_path / "01000" / "01000.png", encoded(2))
    data = dataset_named("ffhq64", "train", tmp_path)
    assert data.labels.tolist() == [0, 0]
    assert data[0].shape == (3, 64, 64)


def test_lsun_is_read_from_its_database(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(tmp_path / "church_outdoor_train_lmdb"), map_size=1 << 20)
    with environment.begin(write=True) as transaction:
        for key, level in ((b"bb", 2), (b"aa", 1), (b"cc", 3)):
            transaction.put(key, encoded(level, (300, 256), "WEBP"))
    environment.close()
    data = dataset_named("lsun-church256-adm", "train", tmp_path)
    assert levels(data) == [1, 2, 3]
    assert data[0].shape == (3, 256, 256)
    assert {file.name for file in tmp_path.rglob("*.*")} == {"data.mdb", "lock.mdb"}  # nothing was written
    (tmp_path / "bedroom_train_lmdb").mkdir()
    with pytest.raises(DatasetError, match="bedroom_train_lmdb is no LSUN database"):
        dataset_named("lsun-bedroom256-ldm", "train", tmp_path)


def test_without_lmdb_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DatasetError, match=r"pip install 'fastsample\[lsun\]'"):
        dataset_named("lsun-church256-adm")


def test_a_folder_keeps_its_pixels_and_streams_them(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = dataset_named(f"folder:{tmp_path}")
    assert [len(batch) for batch in data.batches(2)] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(list(data.batches(2))).permute(0, 2, 3, 1).numpy(), pixels)
    assert torch.equal(data.loaded().images, torch.stack([data[n] for n in range(5)]))
    assert len(list(data)) == 5
    resized = dataset_named(f"folder:{tmp_path}@imagenet64-edm")
    assert resized[0].shape == (3, 64, 64)


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        dataset_named(f"folder:{tmp_path}")
    with pytest.raises(DatasetError, match="nowhere"):
        dataset_named(f"folder:{tmp_path}/nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DatasetError, match="not a zip"):
        dataset_named(f"folder:{tmp_path}/text.zip")
    put(tmp_path / "a.png", encoded(0))
    put(tmp_path / "b.png", encoded(0, (41, 40)))
    with pytest.raises(DatasetError, match="mixes sizes, 40x40 and 41x40"):
        list(dataset_named(f"folder:{tmp_path}").batches(2))
    put(tmp_path / "b.png", encoded(0)[:60])
    with pytest.raises(DatasetError, match=r"b\.png: "):
        list(dataset_named(f"folder:{tmp_path}").batches(2))


def test_images_larger_than_any_are_refused_before_they_are_decoded(tmp_path):
    head = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", 20_000, 4_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    header = head + struct.pack(">I", len(size)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    put(tmp_path / "bomb" / "a.png", data)
    with pytest.raises(DatasetError, match="20000x4000 pixels; at most 67,108,864 are read"):
        dataset_named(f"folder:{tmp_path / 'bomb'}").loaded()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**28 + 1))
    with pytest.raises(DatasetError, match=r"image 0: a.png unpacks to 268,435,457 bytes"):
        dataset_named(f"folder:{tmp_path / 'bomb.zip'}").loaded()


def test_only_images_are_read_whatever_a_file_is_called(tmp_path):
    """Pillow would run Ghostscript on PostScript."""
    put(tmp_path / "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DatasetError, match="cannot identify image file"):
        dataset_named(f"folder:{tmp_path}").loaded()
