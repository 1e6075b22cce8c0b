"""Handwritten digits."""

from __future__ import annotations

from pathlib import Path

import torch

from fastsample.datasets.archives import read_arrays
from fastsample.datasets.image_set import DatasetError, ImageDataset
from fastsample.datasets.registered import register_dataset


@register_dataset("digits", "1,797 handwritten digits 8x8, grey; ships with the package")
def _digits(split: str, path: Path | None) -> ImageDataset:
    """The 8x8 digits of E. Alpaydin and C. Kaynak (1998, UCI repository, CC BY 4.0), levels spread over 0..255."""
    if split != "train":
        raise DatasetError("digits has one split, train")
    file = path or Path(__file__).parents[1] / "data" / "digits.npz"
    try:
        pack = read_arrays(file, ("images", "labels"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} is no file of digits: {error}") from error
    levels, labels = torch.from_numpy(pack["images"]), torch.from_numpy(pack["labels"])
    images = (levels[:, None] * (255 / 16)).round().to(torch.uint8)
    return ImageDataset("digits", split, images, labels.long())
