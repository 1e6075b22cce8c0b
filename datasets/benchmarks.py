"""The benchmarks' data sets, read from the files that their authors publish.

The name of a set is that of its images and its recipe. Nothing here is downloaded: these files need an
account, an agreement or hundreds of gigabytes, so a missing set says what to fetch and where to put it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastsample.datasets.folders import Files, images_of, missing_as, streamed, tree
from fastsample.datasets.home import data_home
from fastsample.datasets.image_set import DatasetError, StreamedImages
from fastsample.datasets.preprocessing import RECIPES

__all__ = ["BENCHMARKS", "Benchmark", "Source"]


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
        with missing_as(f"{name} {split}", advice):
            files = source.files(root, source.splits[split])
        return streamed(name, split, self.recipe, files)


def _classes(root: Path, which: str) -> Files:
    """All images in a folder or in a zip file, sorted by their paths, with the top folders as classes."""
    path = root / which
    return images_of(path, *tree(path))


def _flat(root: Path, which: str) -> Files:
    """The same without classes."""
    files = _classes(root, which)
    return replace(files, labels=torch.zeros_like(files.labels))


def _celeba(root: Path, code: str) -> Files:
    """The aligned CelebA images of a partition: 0 is train, 2 is test."""
    lines = (root / "list_eval_partition.txt").read_text("utf-8-sig", "replace").splitlines()
    names = [line.split()[0] for line in lines if line.split()[1:] == [code]]
    if not names:
        raise FileNotFoundError(f"{root / 'list_eval_partition.txt'} names no image of partition {code}")
    folder = root / "img_align_celeba"
    if folder.is_dir():
        _, read = tree(folder)
    else:
        _, read = tree(root / "img_align_celeba.zip")
        names = [f"img_align_celeba/{name}" for name in names]
    return Files(torch.zeros(len(names), dtype=torch.int64), lambda n: f"{root}/{names[n]}", lambda n: read(names[n]))


def _lmdb(root: Path, which: str) -> Files:
    """An LSUN database, in the order of its keys.

    torchvision's class of the same purpose keeps the keys in a pickle beside the images and trusts it; this reads
    them from the database.
    """
    path = root / which
    environment, keys = _database(path.resolve())

    def read(index: int) -> bytes:
        with environment.begin() as transaction:
            return bytes(transaction.get(keys[index], b""))

    return Files(torch.zeros(len(keys), dtype=torch.int64), lambda index: f"{path}, image {index}", read)


@cache
def _database(path: Path) -> tuple[Any, list[bytes]]:
    """An open environment of lmdb, which a process may open only once, and its keys."""
    try:
        import lmdb
    except ImportError:
        raise DatasetError("LSUN needs the package lmdb: pip install lmdb") from None
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not there")
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=1024)
        size = (path / "data.mdb").stat().st_size
        whole = environment.stat()["psize"] * (environment.info()["last_pgno"] + 1)
        if size < whole:  # it is mapped: reading beyond its end would kill the process
            raise OSError(f"{path / 'data.mdb'} is cut: it has {size:,} bytes of {whole:,}")
        with environment.begin() as transaction:
            return environment, list(transaction.cursor().iternext(values=False))
    except lmdb.Error as error:
        raise OSError(f"{path} is no LSUN database: {error}") from error


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
    **{name: Benchmark(_FFHQ, name) for name in ("ffhq64", "ffhq256", "ffhq256-ldm")},
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
        for style in ("adm", "ldm", "ddim", "score-sde")
    },
    **{name: Benchmark(_IMAGENET, name) for name in RECIPES if re.fullmatch(r"imagenet\d+-(adm|edm)", name)},
    "afhq256": Benchmark(
        Source(
            "AFHQ, 5,153 cats", "afhq", {"train": "train/cat"}, _flat,
            "Unpack afhq.zip of https://github.com/clovaai/stargan-v2 into HOME.",
        ),
        "afhq256",
    ),
    "imagenet64-box": Benchmark(
        Source(
            "downsampled ImageNet, as distributed", "imagenet64", _HALVES, _classes,
            "Put the 64x64 images of https://image-net.org/download-images (downsampled) into HOME/train and HOME/val.",
        ),
        "imagenet64-box",
    ),
}  # fmt: skip
