"""Images that somebody brings: a folder, a zip file, or an npz.

Below a folder or in a zip file every file with the suffix of an image is one, in the order of the sorted paths, but for
what programs leave behind: names that begin with a dot, `__MACOSX`, `@eaDir`, `$RECYCLE.BIN`. Links are followed.

Labels are those of EDM's `dataset.json` where there is one: `{"labels": [["00000/img00000000.png", 6], ...]}`, a
dictionary of the same, or null for none (https://github.com/NVlabs/edm, dataset_tool.py). Else, where all images are in
sub-folders, the top ones are the classes, sorted as text as torchvision does, "10" before "2". A folder around all
images (many zip files have one) is no class.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fastsample.datasets.home import expanded
from fastsample.datasets.image_set import DatasetError, Images, StreamedImages
from fastsample.datasets.names import nearest
from fastsample.datasets.packed import PACK, packed_images
from fastsample.datasets.pixels import open_image
from fastsample.datasets.preprocessing import RECIPES

__all__ = ["Files", "image_folder", "images_of", "missing_as", "streamed", "tree"]

_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff",
}  # fmt: skip
_NOT_READ = {".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl"}
_LEFT_BEHIND = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}  # by macOS, Synology, Windows
_MOST_BYTES = 2**28  # of one file, unpacked
_LABELS = "dataset.json"
_ADVICE = f"Give a folder of images, a zip file, or an npz of {PACK} uint8 [n, h, w, 3]."


class Read(Protocol):
    """What reads a file of a tree, if it has not more bytes than `most`."""

    def __call__(self, name: str, most: int = _MOST_BYTES) -> bytes: ...


@dataclass(frozen=True)
class Files:
    """Files of images, unread.

    Attributes:
        labels: int64 [N] class ids; all 0 where there are no classes.
        title: of image n, for people.
        read: content of image n; called from several threads at once.
    """

    labels: Tensor
    title: Callable[[int], str]
    read: Callable[[int], bytes]


def image_folder(name: str, split: str) -> Images:
    """`folder:PATH` or `folder:PATH@RECIPE`: all images of a folder, a zip file or an npz (see `packed_images`).

    A PATH that is there is meant as it stands, whatever it holds of `@`. Without a recipe all images must have the same
    size. There are no splits: any name is taken.

    Raises:
        DatasetError: when nothing is there, it holds no image, or its labels are not those of its images.
    """
    path, recipe = _place(name.removeprefix("folder:"))
    last = path.resolve().name if path.name in ("", "..") else path.name
    title = f"folder:{last}{f'@{recipe}' if recipe else ''}"  # rows and checkpoints are told no folder above it
    with missing_as(f"{title} {split}", _ADVICE):
        names, read = tree(path)
        if path.is_file() and f"{PACK}.npy" in names:
            return packed_images(title, split, path, recipe or "as-is")
        files = images_of(path, names, read)
    return streamed(title, split, recipe or "as-is", files)


def _place(text: str) -> tuple[Path, str]:
    """The path and the recipe, or ""."""
    if not text:
        raise DatasetError(f"folder: names no path. {_ADVICE}")
    whole = expanded(text)
    before, _, recipe = text.rpartition("@")
    if not before or os.path.lexists(whole):
        return whole, ""
    if recipe in RECIPES:
        return expanded(before), recipe
    if os.path.lexists(expanded(before)):
        raise DatasetError(nearest(recipe, RECIPES, "recipe"))
    return whole, ""


@contextmanager
def missing_as(name: str, advice: str) -> Iterator[None]:
    """What is not there, or cannot be read, is a DatasetError of that name that gives the advice."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{name}: {error}. {advice}") from error


def streamed(name: str, split: str, recipe: str, files: Files) -> StreamedImages:
    """The images of files, made by a recipe when they are asked for."""

    def decoded(index: int) -> Tensor:
        try:
            return RECIPES[recipe](open_image(files.read(index)))
        except Exception as error:  # zipfile, lmdb and Pillow raise many things for damaged and hostile files
            raise DatasetError(f"{files.title(index)}: {error}") from error

    return StreamedImages(name, split, files.labels, decoded, files.title)


def tree(path: Path) -> tuple[list[str], Read]:
    """The paths of all files below a folder or in a zip file, with "/" between names, and what reads one.

    Raises:
        OSError: when there is neither.
    """
    if path.is_dir():
        return _walked(path), lambda name, most=_MOST_BYTES: _content(path / name, most)
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # zipfile raises many things for damaged files
        with path.open("rb") as file:
            raise OSError(f"{path} is no zip file, or is cut: it begins with {file.read(16)!r}") from error
    members = {one.filename.replace("\\", "/"): one for one in archive.infolist()}

    def read(name: str, most: int = _MOST_BYTES) -> bytes:
        if name not in members:
            raise FileNotFoundError("it is not in the zip file")
        _check_size(members[name].file_size, most)
        return archive.read(members[name])

    return list(members), read


def _walked(path: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error

    names, seen = [], set()
    for place, folders, files in os.walk(path, onerror=fail, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or to one that was met
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(folder for folder in folders if not _is_left_behind(folder))
        inner = Path(place).relative_to(path).as_posix()
        names += files if inner == "." else [f"{inner}/{file}" for file in files]
    return names


def _content(file: Path, most: int) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError("it is no file")  # a pipe would wait, a device has no end
    _check_size(status.st_size, most)
    return file.read_bytes()


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise DatasetError(f"it unpacks to {size:,} bytes; at most {most:,} are read")


def images_of(path: Path, names: list[str], read: Read) -> Files:
    """The images of a folder or zip file, which is a `tree` of those names, with their labels; see above.

    Raises:
        OSError: when there is no image.
        DatasetError: for images of formats that are not read, and labels that are not those of the images.
    """
    names = sorted(name for name in names if not any(map(_is_left_behind, name.split("/"))))
    suffixes = [name[name.rfind(".") :].lower() for name in names]
    for name, suffix in zip(names, suffixes, strict=True):
        if suffix in _NOT_READ:
            raise DatasetError(f"{path}/{name}: {suffix} is not read; save it as PNG, or take it away")
    images = [name for name, suffix in zip(names, suffixes, strict=True) if suffix in _SUFFIXES]
    if not images:
        raise FileNotFoundError(f"{path} holds no image ({', '.join(sorted(_SUFFIXES))})")
    around = os.path.commonprefix([images[0], images[-1]]).rpartition("/")[0]  # noqa: RUF071 - of all: they are sorted
    described = [name for name in names if name.rpartition("/")[2] == _LABELS]
    if described:
        labels = _described(path, described, around, images, read)
    else:
        inner = [name[len(around) :].lstrip("/").partition("/") for name in images]
        tops = [top if slash else "" for top, slash, _ in inner]
        ids = {top: n for n, top in enumerate(sorted(set(tops)))} if all(tops) else {}
        labels = [ids.get(top, 0) for top in tops]
    return Files(torch.tensor(labels), lambda n: f"{path}/{images[n]}", lambda n: read(images[n]))


def _is_left_behind(part: str) -> bool:
    return part.startswith(".") or part in _LEFT_BEHIND


def _described(path: Path, described: list[str], around: str, images: list[str], read: Read) -> list[int]:
    """The labels that the one `dataset.json` gives to the images, whose paths in it begin where it lies."""
    file, base = f"{path}/{described[0]}", described[0].removesuffix(_LABELS)
    if len(described) > 1 or not f"{around}/".startswith(base):
        raise DatasetError(f"{file} gives labels to a part of the images only; give the folder that it lies in")
    try:
        content = read(described[0], 2**16 + 500 * len(images))  # a name and a number each
    except Exception as error:  # zipfile raises many things for damaged files
        raise DatasetError(f"{file}: {error}") from error
    try:
        given = json.loads(content)["labels"]
        given = None if given is None else dict(given)
    except (ValueError, TypeError, LookupError, RecursionError):
        raise DatasetError(
            f'{file} is not as EDM writes it, {{"labels": [["00000/img00000000.png", 6], ...]}}'
        ) from None
    if given is None:
        return [0] * len(images)
    inner = [name.removeprefix(base) for name in images]
    if missing := [name for name in inner if name not in given]:
        raise DatasetError(f"{file} gives no label to {len(missing):,} of {len(inner):,} images, such as {missing[0]}")
    if unknown := given.keys() - inner:
        raise DatasetError(
            f"{file} gives labels to {len(unknown):,} images that are not there, such as {_short(unknown.pop())}"
        )
    for name in inner:
        if type(given[name]) is not int or not 0 <= given[name] < 2**31:
            raise DatasetError(f"{file}: the label of {name} is {_short(given[name])}, not a class 0, 1, 2, ...")
    return [given[name] for name in inner]


def _short(value: object) -> str:
    return f"{str(value)[:80]!r}"
