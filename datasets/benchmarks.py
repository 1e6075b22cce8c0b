"""The benchmarks' data sets, read from the files that their authors publish, and plain image folders.

The name of a set is that of its images and its recipe. Nothing here is downloaded: these files need an
account, an agreement or hundreds of gigabytes, so a missing set says what to fetch and where to put it.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fastsample.datasets.home import data_home
from fastsample.datasets.images import DatasetError, StreamedImages
from fastsample.datasets.preprocessing import RECIPES, Recipe

__all__ = ["BENCHMARKS", "Benchmark", "Source", "image_folder"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")  # told by the content: others run programs (EPS) or are films
_MOST_PIXELS = 2**26  # the largest of ImageNet has 61 million
_MOST_BYTES = 2**28  # of one image in a zip, unpacked


Files = tuple[Tensor, Callable[[int], tuple[str, bytes]]]  # labels int64 [N]; name and content of image n


@dataclass(frozen=True)
class Source:
    """Published files of images.

    Attributes:
        title: one line for people.
        folder: where they are, under `data_home()`.
        splits: split -> its name in the files.
        files: opens (folder, that name).
        advice: what to fetch and where to put it; HOME stands for the folder.
    """

    title: str
    folder: str
    splits: dict[str, str]
    files: Callable[[Path, str], Files]
    advice: str


@dataclass(frozen=True)
class Benchmark:
    """A source with the name of a recipe."""

    source: Source
    recipe: str

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.source.title}; {RECIPES[self.recipe].title}"

    def open(self, name: str, split: str, root: Path | None = None) -> StreamedImages:
        """The images of a split; `root` replaces the source's folder.

        Raises:
            DatasetError: when there is no such split, or its files are not there.
        """
        source = self.source
        if split not in source.splits:
            raise DatasetError(f"{name} has no split {split!r}; it has: {', '.join(source.splits)}")
        root = root or data_home() / source.folder
        advice = source.advice.replace("HOME", str(root))
        return _streamed(name, split, self.recipe, lambda: source.files(root, source.splits[split]), advice)


def image_folder(name: str, split: str) -> StreamedImages:
    """`folder:PATH` or `folder:PATH@RECIPE`: all images of a folder or zip file, sorted by their paths.

    Where all images are in sub-folders, the top ones, sorted, are the classes. Without a recipe all images
    must have the same size. A folder has no splits: any name is taken.

    Raises:
        DatasetError: when nothing is there, or it holds no image.
    """
    path, at, recipe = name.removeprefix("folder:").rpartition("@")
    if not at or recipe not in RECIPES:
        path, recipe = name.removeprefix("folder:"), "as-is"
    title = f"folder:{Path(path).name}{f'@{recipe}' if at else ''}"  # rows and checkpoints are told no folder above it
    return _streamed(title, split, recipe, lambda: _classes(Path(path), ""), "Give a folder of images or a zip file.")


def _streamed(name: str, split: str, recipe: str, files: Callable[[], Files], advice: str) -> StreamedImages:
    try:
        labels, read = files()
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{name} {split}: {error}. {advice}") from error

    def decoded(index: int) -> Tensor:
        try:
            title, data = read(index)
        except Exception as error:  # zipfile and lmdb raise many things for damaged files
            raise DatasetError(f"{name} {split}, image {index}: {error}") from error
        return _decoded(title, data, RECIPES[recipe])

    return StreamedImages(name, split, labels, decoded)


def _decoded(name: str, data: bytes, recipe: Recipe) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > _MOST_PIXELS:
            raise DatasetError(f"{image.width}x{image.height} pixels; at most {_MOST_PIXELS:,} are read")
        return recipe(image)
    except Exception as error:  # Pillow raises many things for damaged and hostile images
        raise DatasetError(f"{name}: {error}") from error


def _unzipping(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The names in a zip file, and what reads one of them."""
    archive = zipfile.ZipFile(path)

    def read(name: str) -> bytes:
        if (size := archive.getinfo(name).file_size) > _MOST_BYTES:
            raise DatasetError(f"{name} unpacks to {size:,} bytes; at most {_MOST_BYTES:,} are read")
        return archive.read(name)

    return archive.namelist(), read


def _flat(root: Path, which: str) -> Files:
    """All images in a folder or in a zip file, sorted by their paths."""
    labels, read = _classes(root, which)
    return torch.zeros_like(labels), read


def _classes(root: Path, which: str) -> Files:
    """The same, with the top folders as classes where every image is in one."""
    path = root / which
    read: Callable[[str], bytes]
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*")]
        read = lambda name: (path / name).read_bytes()  # noqa: E731 - one of two readers
    else:
        names, read = _unzipping(path)
    names = sorted(name for name in names if Path(name).suffix.lower() in _SUFFIXES)
    if not names:
        raise FileNotFoundError(f"{path} holds no image")
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    ids = {top: n for n, top in enumerate(sorted(set(tops)))} if all(tops) else {"": 0}
    labels = torch.tensor([ids.get(top, 0) for top in tops])
    return labels, lambda index: (f"{path}/{names[index]}", read(names[index]))


def _celeba(root: Path, code: str) -> Files:
    """The aligned CelebA images of a partition: 0 is train, 2 is test."""
    lines = (root / "list_eval_partition.txt").read_text("utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.split()[1:] == [code]]
    if not names:
        raise FileNotFoundError(f"{root / 'list_eval_partition.txt'} names no image of partition {code}")
    read: Callable[[str], bytes]
    if (root / "img_align_celeba").is_dir():
        read = lambda name: (root / name).read_bytes()  # noqa: E731 - one of two readers
    else:
        _, read = _unzipping(root / "img_align_celeba.zip")
    names = [f"img_align_celeba/{name}" for name in names]
    return torch.zeros(len(names), dtype=torch.int64), lambda index: (f"{root}/{names[index]}", read(names[index]))


def _lmdb(root: Path, which: str) -> Files:
    """An LSUN database, in the order of its keys.

    torchvision's class of the same purpose keeps the keys in a pickle beside the images and trusts it; this reads
    them from the database.
    """
    path = root / which
    try:
        import lmdb
    except ImportError:
        raise DatasetError("LSUN needs the package lmdb: pip install 'fastsample[lsun]'") from None
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not there")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1024)
        with environment.begin() as transaction:
            keys = list(transaction.cursor().iternext(values=False))
    except lmdb.Error as error:
        raise OSError(f"{path} is no LSUN database: {error}") from error

    def read(index: int) -> tuple[str, bytes]:
        with environment.begin() as transaction:
            return f"{path}, image {index}", bytes(transaction.get(keys[index], b""))

    return torch.zeros(len(keys), dtype=torch.int64), read


_WHOLE, _HALVES = {"train": ""}, {"train": "train", "test": "val"}


def _lsun(scene: str, count: str) -> Source:
    return Source(
        f"LSUN {scene}, {count} + 300",
        "lsun",
        {"train": f"{scene}_train_lmdb", "test": f"{scene}_val_lmdb"},
        _lmdb,
        f"Fetch the databases with https://github.com/fyu/lsun (download.py -c {scene}) and unzip them in HOME.",
    )


_CELEBA = Source(
    "CelebA, aligned faces, 162,770 + 19,962",
    "celeba",
    {"train": "0", "test": "2"},
    _celeba,
    "Put img_align_celeba.zip (or its folder) and list_eval_partition.txt, both linked from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, into HOME.",
)
_FFHQ = Source(
    "FFHQ, 70,000 faces", "ffhq", _WHOLE, _flat,
    "Put images1024x1024 of https://github.com/NVlabs/ffhq-dataset into HOME.",
)  # fmt: skip
_IMAGENET = Source(
    "ImageNet, 1,281,167 + 50,000 images of 1000 classes",
    "imagenet",
    _HALVES,
    _classes,
    "Unpack ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of https://image-net.org so that there is one folder "
    "per WordNet id, HOME/train/n01440764 and so on (torchvision.datasets.ImageNet does it).",
)

BENCHMARKS: dict[str, Benchmark] = {
    **{name: Benchmark(_CELEBA, name) for name in RECIPES if name.startswith("celeba64-")},
    "celebahq256": Benchmark(
        Source(
            "CelebA-HQ, 30,000 faces", "celebahq", _WHOLE, _flat,
            "Put the 30,000 images of CelebA-HQ, made as in https://github.com/tkarras/progressive_growing_of_gans, "
            "into HOME (1024x1024 or 256x256).",
        ),
        "celebahq256",
    ),
    **{name: Benchmark(_FFHQ, name) for name in ("ffhq64", "ffhq256-ldm")},
    "afhqv2-64": Benchmark(
        Source(
            "AFHQv2, 15,803 animal faces", "afhqv2", _WHOLE, _flat,
            "Unpack afhq_v2.zip of https://github.com/clovaai/stargan-v2 into HOME.",
        ),
        "afhqv2-64",
    ),
    **{
        f"lsun-{short}256-{style}": Benchmark(_lsun(scene, count), f"lsun256-{style}")
        for short, scene, count in (("bedroom", "bedroom", "3,033,042"), ("church", "church_outdoor", "126,227"))
        for style in ("adm", "ldm", "ddim")
    },
    **{name: Benchmark(_IMAGENET, name) for name in ("imagenet64-adm", "imagenet64-edm", "imagenet256-adm")},
    "imagenet64-box": Benchmark(
        Source(
            "downsampled ImageNet, as distributed", "imagenet64", _HALVES, _classes,
            "Put the 64x64 images of https://image-net.org/download-images (downsampled) into HOME/train and HOME/val.",
        ),
        "imagenet64-box",
    ),
}  # fmt: skip
