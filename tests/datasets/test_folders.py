"""Images that somebody brings, as they lie on disks: folders, zip files, names, labels, damage."""

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named

from ..command import command
from .image_files import encoded, levels, put

PNG = encoded(50, (8, 8))
BEHIND = b"\0\5\x16\7\0\2\0\0Mac OS X"  # what macOS writes as ._NAME


def opened(path):
    return dataset_named(f"folder:{path}")


def zipped(file, members):
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def labels(path):
    return opened(path).labels.tolist()


def test_a_folder_keeps_its_pixels_and_streams_them(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = opened(tmp_path)
    assert [len(batch) for batch in data.batches(2)] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(list(data.batches(2))).permute(0, 2, 3, 1).numpy(), pixels)
    assert torch.equal(data.loaded().images, torch.stack([data[n] for n in range(5)]))
    assert len(list(data)) == 5
    resized = dataset_named(f"folder:{tmp_path}@imagenet64-edm")
    assert resized[0].shape == (3, 64, 64)


def test_a_set_of_several_parts_is_loaded_whole(tmp_path):
    for n in range(501):
        put(tmp_path / f"{n:03}.png", encoded(n % 251, (1, 1)))
    assert opened(tmp_path).loaded().images[:, 0, 0, 0].tolist() == [n % 251 for n in range(501)]


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        opened(tmp_path)
    with pytest.raises(DatasetError, match="nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="names no path"):
        dataset_named("folder:")
    put(tmp_path / "a.png", encoded(0))
    with pytest.raises(DatasetError, match="one place too many"):
        dataset_named(f"folder:{tmp_path}", path=tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_mixed_sizes_are_told_whatever_the_batch(size, tmp_path):
    for n in range(6):
        put(tmp_path / f"{n}.png", encoded(0, (48, 32) if n >= 4 else (32, 32)))
    with pytest.raises(DatasetError, match=r"mixes sizes: \S+0\.png is 32x32, \S+4\.png is 48x32; name a recipe"):
        list(opened(tmp_path).batches(size))
    with pytest.raises(DatasetError, match="mixes sizes"):
        opened(tmp_path).loaded()
    assert dataset_named(f"folder:{tmp_path}@imagenet64-edm").loaded().shape == (3, 64, 64)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_programs_leave_behind_is_no_image_and_no_class(packed, tmp_path):
    members = {
        "cat/1.png": encoded(1), "dog/1.png": encoded(2),
        ".ipynb_checkpoints/1-checkpoint.png": encoded(3), "cat/.ipynb_checkpoints/1.png": encoded(3),
        "cat/._1.png": BEHIND, "__MACOSX/cat/._1.png": BEHIND, "__MACOSX/x.png": BEHIND,
        "@eaDir/1.png/SYNOPHOTO_THUMB_M.png": encoded(3), "$RECYCLE.BIN/$R1.png": encoded(3), ".git/x.png": encoded(3),
        ".DS_Store": BEHIND, "cat/Thumbs.db": b"x", "desktop.ini": b"x", "._dataset.json": BEHIND,
    }  # fmt: skip
    path = zipped(tmp_path / "data.zip", members) if packed else tmp_path
    if not packed:
        for name, data in members.items():
            put(tmp_path / name, data)
    data = opened(path)
    assert (levels(data), data.labels.tolist()) == ([1, 2], [0, 1])


def test_the_folder_itself_may_be_hidden(tmp_path):
    put(tmp_path / ".cache" / "1.png", PNG)
    assert len(opened(tmp_path / ".cache")) == 1


def test_a_folder_around_all_images_is_no_class(tmp_path):
    zipped(tmp_path / "a.zip", {"data/cat/1.png": PNG, "data/dog/1.png": PNG, "__MACOSX/data/cat/._1.png": BEHIND})
    assert labels(tmp_path / "a.zip") == [0, 1]
    zipped(tmp_path / "b.zip", {"data/set/1.png": PNG, "data/set/2.png": PNG})
    assert labels(tmp_path / "b.zip") == [0, 0]
    zipped(tmp_path / "c.zip", {"a-b/1.png": PNG, "a/1.png": PNG, "a/2.png": PNG})  # "-" sorts before "/"
    assert labels(tmp_path / "c.zip") == [1, 0, 0]
    zipped(tmp_path / "d.zip", {"1.png": PNG, "cat/1.png": PNG, "dog/1.png": PNG})
    assert labels(tmp_path / "d.zip") == [0, 0, 0]


def test_zip_files_of_other_tools(tmp_path):
    zipped(tmp_path / "windows.zip", {"cat\\1.png": PNG, "dog\\1.png": PNG})
    assert labels(tmp_path / "windows.zip") == [0, 1]
    zipped(tmp_path / "folders.zip", {"x.png/": b"", "x.png/1.png": PNG})
    assert len(opened(tmp_path / "folders.zip").loaded()) == 1


def test_links_are_followed_once(tmp_path):
    for name in ("cat", "dog"):
        put(tmp_path / "store" / name / "1.png", PNG)
        put(tmp_path / "data" / name, b"")
        (tmp_path / "data" / name).unlink()
        (tmp_path / "data" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "cat" / "up").symlink_to(tmp_path / "data")
    assert labels(tmp_path / "data") == [0, 1]


EDM = {f"{n // 2:05d}/img{n:08d}.png": encoded(20 * n, (8, 8)) for n in range(4)}
CLASSES = [[name, k] for name, k in zip(EDM, (3, 1, 3, 0), strict=True)]


@pytest.mark.parametrize("given", [CLASSES, CLASSES[::-1], dict(CLASSES)], ids=["list", "another order", "dictionary"])
def test_labels_are_those_of_dataset_json(given, tmp_path):
    told = json.dumps({"labels": given}).encode()
    zipped(tmp_path / "a.zip", EDM | {"dataset.json": told})
    zipped(tmp_path / "b.zip", {f"wrapped/{name}": data for name, data in (EDM | {"dataset.json": told}).items()})
    zipped(tmp_path / "c.zip", EDM | {"dataset.json": b"\xef\xbb\xbf" + told})
    for name, data in (EDM | {"dataset.json": told}).items():
        put(tmp_path / "d" / name, data)
    for path in ("a.zip", "b.zip", "c.zip", "d"):
        assert labels(tmp_path / path) == [3, 1, 3, 0], path


def test_null_means_no_classes(tmp_path):
    assert labels(zipped(tmp_path / "a.zip", EDM | {"dataset.json": b'{"labels": null}'})) == [0, 0, 0, 0]
    assert labels(zipped(tmp_path / "b.zip", EDM)) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": CLASSES[:3]}, r"no label to 1 of 4 images, such as 00001/img00000003\.png"),
        ({"labels": []}, "no label to 4 of 4"),
        ({"labels": [*CLASSES, ["gone.png", 1]]}, r"labels to 1 images that are not there, such as 'gone\.png'"),
        (
            {"labels": [[name, k + 0.5] for name, k in CLASSES]},
            r"label of 00000/img00000000\.png is '3\.5', not a class",
        ),
        ({"labels": [[name, -k] for name, k in CLASSES]}, "not a class"),
        ({"labels": [[name, [0.0, 1.0]] for name, _ in CLASSES]}, "not a class"),
        ({"labels": [[name, True] for name, _ in CLASSES]}, "not a class"),
        ({"labels": [[name, 2**70] for name, _ in CLASSES]}, "not a class"),
        ({"labels": [1, 2]}, "not as EDM writes it"),
        ({"images": []}, "not as EDM writes it"),
        ([1], "not as EDM writes it"),
        (b"{", "not as EDM writes it"),
        (b"<!DOCTYPE html>", "not as EDM writes it"),
        (b"[" * 60_000, "not as EDM writes it"),
        (b" " * 100_000, "it unpacks to 100,000 bytes; at most 67,536 are read"),
    ],
)
def test_labels_that_are_not_those_of_the_images_are_told(content, message, tmp_path):
    told = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(DatasetError, match=rf"a\.zip/dataset\.json:? .*{message}"):
        labels(zipped(tmp_path / "a.zip", EDM | {"dataset.json": told}))


def test_damaged_labels_are_named(tmp_path):
    file = zipped(tmp_path / "a.zip", EDM | {"dataset.json": b'{"labels": null}'})
    file.write_bytes(file.read_bytes().replace(b"null}", b"none}"))
    with pytest.raises(DatasetError, match=r"a\.zip/dataset\.json: Bad CRC-32"):
        opened(file)


def test_labels_of_a_part_are_told(tmp_path):
    parts = {"train/1.png": PNG, "val/1.png": PNG, "train/dataset.json": b'{"labels": [["1.png", 4]]}'}
    with pytest.raises(DatasetError, match=r"train/dataset\.json gives labels to a part of the images"):
        labels(zipped(tmp_path / "a.zip", parts))


def test_a_path_is_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("x", "a@b", "a,b", "a@as-is", "-x", "a b", "a#b", "ü")):
        put(tmp_path / name / "1.png", encoded(n, (8, 8)))
        for spec in (f"~/{name}", name, f"{tmp_path}/{name}", f"{name}/."):
            data = dataset_named(f"folder:{spec}")
            assert (data.name, levels(data)) == (f"folder:{name}", [n])
        data = dataset_named(f"folder:~/{name}@imagenet64-edm")
        assert (data.name, data[0].shape) == (f"folder:{name}@imagenet64-edm", (3, 64, 64))
    monkeypatch.chdir(tmp_path / "x")
    assert dataset_named("folder:.").name == "folder:x"
    with pytest.raises(DatasetError, match="unknown recipe 'imagenet64-ed'; did you mean imagenet64-edm"):
        dataset_named("folder:~/x@imagenet64-ed")
    with pytest.raises(DatasetError, match="'~nobody-of-that-name/x'"):
        dataset_named("folder:~nobody-of-that-name/x")
    with pytest.raises(DatasetError, match=f"was not found at {tmp_path}/none.npz"):
        dataset_named("cifar10-jpeg", path="~/none.npz")
    with pytest.raises(DatasetError, match="or folder:PATH"):
        dataset_named("x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"<!DOCTYPE html>", r"is no zip file, or is cut: it begins with b'<!DOCTYPE html>'"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version https://'"),
        ("a.npz", b"<!DOCTYPE html>", "is no zip file, or is cut"),
        ("a.tar", b"./data" + bytes(1000), "is no zip file, or is cut"),
        ("d/a.png", encoded(0)[:60], "a.png: "),
        ("d/a.png", b"", "a.png: it is nothing that Pillow reads as PNG"),
        ("d/a.png", b"<!DOCTYPE html>", "a.png: it is nothing that Pillow reads .* begins with b'<!DOCTYPE html>'"),
        ("d/a.jpg", encoded(0, kind="JPEG")[:-20], "a.jpg: image file is truncated"),
        ("d/a.tif", encoded(0, kind="TIFF")[:-3000], "a.tif: "),
        ("d/a.webp", encoded(0, kind="WEBP")[:-20], "a.webp: "),
        ("d/a.gif", encoded(0, kind="GIF"), "a.gif: .gif is not read; save it as PNG"),
        ("d/a.avif", b"x", "a.avif: .avif is not read"),
    ],
)
def test_a_damaged_file_is_named(name, content, message, tmp_path):
    put(tmp_path / name, content)
    with pytest.raises(DatasetError, match=message) as told:
        opened(tmp_path / name.partition("/")[0]).loaded()
    assert len(str(told.value).splitlines()) == 1
    assert f"{tmp_path}/{name}" in str(told.value)


def test_a_cut_or_changed_zip_is_named(tmp_path):
    whole = zipped(tmp_path / "a.zip", {"a.png": PNG}).read_bytes()
    for name, content in {"cut.zip": whole[:-30], "changed.zip": whole[:60] + b"?" + whole[61:]}.items():
        put(tmp_path / name, content)
        with pytest.raises(DatasetError, match=rf"{name}"):
            opened(tmp_path / name).loaded()


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: it is no file"):
        opened(tmp_path).loaded()
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DatasetError, match=r"a\.png: .*No such file"):
        opened(tmp_path).loaded()


def test_images_larger_than_any_are_refused_before_they_are_decoded(tmp_path):
    head = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", 20_000, 4_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    header = head + struct.pack(">I", len(size)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    put(tmp_path / "bomb" / "a.png", data)
    with pytest.raises(DatasetError, match="20000x4000 pixels; at most 67,108,864 are read"):
        opened(tmp_path / "bomb").loaded()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**28 + 1))
    with pytest.raises(DatasetError, match=r"bomb\.zip/a\.png: it unpacks to 268,435,457 bytes"):
        opened(tmp_path / "bomb.zip").loaded()
    with (tmp_path / "bomb" / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DatasetError, match=r"a\.png: it unpacks to 1,099,511,627,776 bytes"):
        opened(tmp_path / "bomb").loaded()


def test_only_images_are_read_whatever_a_file_is_called(tmp_path):
    """Pillow would run Ghostscript on PostScript."""
    put(tmp_path / "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DatasetError, match="nothing that Pillow reads"):
        opened(tmp_path).loaded()


def test_the_command_line_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(Path("cut/a.png"), encoded(0)[:60])
    put(Path("sizes/a.png"), PNG)
    put(Path("sizes/b.png"), encoded(0))
    for n in range(64):
        put(Path(f"classes/{n:02}/a.png"), PNG)
    put(Path("classes.toml"), b'like = "cifar10-tiny-flow"\nclasses = 3\nbatch = 8\n')
    for recipe, folder, message in (
        ("cifar10-tiny-flow", "cut", "cut/a.png: "),
        ("cifar10-tiny-flow", "sizes", "sizes/a.png is 8x8, sizes/b.png is 40x40"),
        ("cifar10-tiny-flow", "gone", "No such file"),
        ("classes.toml", "classes", "has a class 63; classes has 0 to 2"),
    ):
        ended = command("train", "flow", recipe, "--dataset", f"folder:{folder}", "--out", "run", "--device", "cpu")
        assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1), ended
        assert message in ended.err
