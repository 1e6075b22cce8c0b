"""The benchmarks' sets on small files of the published layouts."""

import sys
import zipfile
from importlib.util import find_spec

import pytest

from fastsample.datasets.benchmarks import BENCHMARKS
from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named, dataset_names
from fastsample.datasets.preprocessing import RECIPES

from .image_files import encoded, levels, put


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
    whole = (tmp_path / "church_outdoor_train_lmdb" / "data.mdb").read_bytes()
    data = dataset_named("lsun-church256-adm", "train", tmp_path)
    assert levels(data) == [1, 2, 3]
    assert data[0].shape == (3, 256, 256)
    assert {file.name for file in tmp_path.rglob("*.*")} == {"data.mdb", "lock.mdb"}  # nothing was written
    assert levels(dataset_named("lsun-church256-ldm", "train", tmp_path)) == [1, 2, 3]  # another recipe beside it
    for cut in (1, len(whole) // 2, len(whole) - 4096, len(whole) - 100):
        put(tmp_path / str(cut) / "church_outdoor_train_lmdb" / "data.mdb", whole[:-cut])
        with pytest.raises(DatasetError, match=r"data\.mdb is cut: it has|MDB_INVALID"):
            dataset_named("lsun-church256-adm", "train", tmp_path / str(cut))
    (tmp_path / "bedroom_train_lmdb").mkdir()
    with pytest.raises(DatasetError, match="bedroom_train_lmdb is no LSUN database"):
        dataset_named("lsun-bedroom256-ldm", "train", tmp_path)


def test_without_lmdb_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DatasetError, match=r"pip install lmdb"):
        dataset_named("lsun-church256-adm")
