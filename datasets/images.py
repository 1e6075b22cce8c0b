"""Data sets of real images, by name, as uint8 tensors: those of the benchmarks, and CIFAR-10 twice.

`cifar10` is the real set, read by torchvision. `cifar10-jpeg` is the same 60,000 photographs after JPEG
compression at quality 75 (about 30.5 dB from the originals): it exists so that training, smoke tests and
feature statistics work without a download, and a distance to it is never called `fid`. `digits` is for trainings of
a minute.
"""

from __future__ import annotations

from pathlib import Path

import fastsample.datasets.sets  # noqa: F401 - registers them
from fastsample.datasets.benchmarks import BENCHMARKS
from fastsample.datasets.folders import image_folder
from fastsample.datasets.home import expanded
from fastsample.datasets.image_set import DatasetError, Images
from fastsample.datasets.own.code import Code, code_named, fault, offered
from fastsample.datasets.registered import REGISTERED

__all__ = ["CIFAR10_CLASSES", "dataset_named", "dataset_names"]

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def dataset_names() -> dict[str, str]:
    """The known data sets, each with a line that says what it is."""
    here = {name: about for name, (about, _) in REGISTERED.items()}
    installed = {name: f"offered by {point.value}" for name, point in offered("datasets").items()}
    return here | installed | {name: benchmark.title for name, benchmark in sorted(BENCHMARKS.items())}


def dataset_named(name: str, split: str = "train", path: str | Path | None = None) -> Images:
    """The data set of that name.

    Args:
        name: one of `dataset_names()`; FILE.py:NAME, a function of (split, path) that returns `Images`; or
            `folder:PATH`, or `folder:PATH@RECIPE` (a folder, a zip file or an npz); see `image_folder`.
        split: "train" or "test".
        path: torchvision's root folder for `cifar10`, a packed file for `cifar10-jpeg`, the folder of the
            published files for the others; by default all are looked for in `data_home()`, and the test
            split of `cifar10-jpeg` comes with the package.

    Raises:
        DatasetError: for an unknown name or split, a missing file, or a file that fails its checks.
    """
    if name.startswith("folder:"):
        if path is not None:
            raise DatasetError(f"{name} says itself where its images are; {path} is one place too many")
        return image_folder(name, split)
    place = None if path is None else expanded(path)
    if name not in REGISTERED and (code := code_named(name, "datasets")):
        return _own(code, split, place)
    if name in BENCHMARKS:
        return BENCHMARKS[name].open(name, split, place)
    if name not in REGISTERED:
        raise DatasetError(f"unknown data set {name!r}; known: {', '.join(dataset_names())}, or folder:PATH")
    if split not in ("train", "test"):
        raise DatasetError(f"unknown split {split!r} of {name}; known: train, test")
    return REGISTERED[name][1](split, place)


def _own(code: Code, split: str, path: Path | None) -> Images:
    try:
        found = code.value(split, path)
    except DatasetError:
        raise
    except Exception as error:  # of a user's code
        raise DatasetError(f"{code.name} fails: {fault(error)}") from error
    if not isinstance(found, Images):
        raise DatasetError(f"{code.name} returns {type(found).__name__}, not an ImageDataset or StreamedImages")
    return found
