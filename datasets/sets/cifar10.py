"""CIFAR-10, as it is and after JPEG compression."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastsample.datasets.archives import read_arrays
from fastsample.datasets.home import data_home
from fastsample.datasets.image_set import DatasetError, ImageDataset
from fastsample.datasets.registered import register_dataset

_JPEG_FILES = {  # split -> (number of images, sha256 of the packed file)
    "train": (50_000, "69898406028998e0b2afaebd4ea57371705eeea38b4ef8ca766f7d26842b1caf"),
    "test": (10_000, "e3c2787f8043f46bdcd61af4251206ce22ba28fd7a6a2282873deadcf383e749"),
}


@register_dataset("cifar10", "CIFAR-10, 50,000 + 10,000 images 32x32, read by torchvision")
def _cifar10(split: str, root: Path | None) -> ImageDataset:
    from torchvision.datasets import CIFAR10

    root = root or data_home()
    try:
        data = CIFAR10(str(root), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise DatasetError(f"{_fault(root)}, or use the data set cifar10-jpeg.") from error
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return ImageDataset("cifar10", split, images, torch.tensor(data.targets))


def _fault(root: Path) -> str:
    """What torchvision did not say: which file of CIFAR-10 is not there or damaged, and what to do."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    archive, folder = root if root.is_file() else root / CIFAR10.filename, root / CIFAR10.base_folder
    if folder.is_dir():
        for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])):
            if not check_integrity(folder / name, md5):
                state = f"is damaged (its md5 is not {md5})" if (folder / name).is_file() else "is not there"
                return f"CIFAR-10's {folder / name} {state}; unpack {CIFAR10.filename} anew"
    if archive.is_file():
        if check_integrity(archive, CIFAR10.tgz_md5):
            return f"CIFAR-10's {archive} is still packed; unpack it (tar -xzf), give the folder of {folder.name}"
        return f"{archive} is cut, or not CIFAR-10 (its md5 is not {CIFAR10.tgz_md5}); fetch it again"
    return (
        f"CIFAR-10 was not found under {root} (looked for {folder}, with its checksums); unpack {CIFAR10.filename} "
        "there, give another folder"
    )


@register_dataset("cifar10-jpeg", "CIFAR-10 after JPEG at quality 75 (lossy); it ships with the package")
def _cifar10_jpeg(split: str, path: Path | None) -> ImageDataset:
    path = path or Path(__file__).parents[1] / "data" / f"cifar10_jpeg_{split}.npz"
    if not path.is_file():
        raise DatasetError(f"the {split} split of cifar10-jpeg was not found at {path}; give the path of its file")
    count, sha256 = _JPEG_FILES[split]
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise DatasetError(f"{path} is not the {split} split of cifar10-jpeg: its sha256 is not {sha256}")
    images, labels = _unpack_jpegs(raw, str(path))
    if len(images) != count:
        raise DatasetError(f"{path} holds {len(images)} images, not {count}")
    return ImageDataset("cifar10-jpeg", split, images, labels)


def _unpack_jpegs(raw: bytes, origin: str, side: int = 32) -> tuple[Tensor, Tensor]:
    """(images uint8 [N, 3, side, side], labels int64 [N]) of a packed file of JPEGs with one common header.

    The file is an npz of `header` (the bytes every JPEG starts with), `scan` (the entropy-coded bytes
    of all images), `offsets` uint32 [N+1] into it, and `labels` uint8 [N].

    Raises:
        DatasetError: when an array is missing or inconsistent, or an image does not decode to side x side RGB.
    """
    try:
        header, scan, offsets, labels = read_arrays(io.BytesIO(raw), ("header", "scan", "offsets", "labels")).values()
    except (ValueError, OSError) as error:
        raise DatasetError(f"{origin} is not a packed JPEG set: {error}") from error
    ends = offsets.astype(np.int64)
    if (
        header.tobytes()[:2] != b"\xff\xd8"
        or len(ends) != len(labels) + 1
        or (ends[0], ends[-1]) != (0, len(scan))
        or (np.diff(ends) <= 0).any()
    ):
        raise DatasetError(f"{origin}: header, offsets, scan and labels do not fit together")
    start, body = header.tobytes(), scan.tobytes()
    images = np.empty((len(labels), side, side, 3), np.uint8)
    for n in range(len(labels)):
        jpeg = start + body[ends[n] : ends[n + 1]] + b"\xff\xd9"
        try:
            image = Image.open(io.BytesIO(jpeg))
            image.load()
        except OSError as error:
            raise DatasetError(f"{origin}: image {n} does not decode: {error}") from error
        if image.size != (side, side) or image.mode != "RGB":
            raise DatasetError(f"{origin}: image {n} is {image.size} {image.mode}, not {side}x{side} RGB")
        images[n] = np.asarray(image)
    planar = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return planar, torch.from_numpy(labels.astype(np.int64))
