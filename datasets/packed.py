"""Images in one array of an npz, as guided diffusion and the codes after it write samples and reference batches."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL.Image import fromarray
from torch import Tensor

from fastsample.datasets.archives import map_array, read_arrays
from fastsample.datasets.image_set import DatasetError, ImageDataset, Images, StreamedImages
from fastsample.datasets.preprocessing import RECIPES

__all__ = ["PACK", "packed_images"]

PACK, _LABELS = "arr_0", "arr_1"


def packed_images(name: str, split: str, path: Path, recipe: str) -> Images:
    """The images of an npz: `arr_0` uint8 [n, h, w, 3], and `arr_1`, integers [n], their classes where it is there.

    What is stored as it is (`np.savez`) stays in the file and is read as it is used; what is compressed is held once.

    Raises:
        DatasetError: when it is damaged, or an array is of another kind.
    """
    try:
        images = map_array(path, PACK)
        with zipfile.ZipFile(path) as archive:
            labelled = f"{_LABELS}.npy" in archive.namelist()
        ids = read_arrays(path, [_LABELS])[_LABELS] if labelled else np.zeros(images.shape[:1], np.int64)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise DatasetError(f"{path}: {PACK} is {images.dtype} {list(images.shape)}, not images, uint8 [n, h, w, 3]")
    if ids.dtype.kind not in "iu" or ids.shape != images.shape[:1] or ids.min() < 0 or ids.max() >= 2**31:
        raise DatasetError(
            f"{path}: {_LABELS} is {ids.dtype} {list(ids.shape)}, not classes 0, 1, 2, ... of {len(images):,} images"
        )
    labels = torch.from_numpy(ids.astype(np.int64))
    if recipe == "as-is":
        return ImageDataset(name, split, torch.from_numpy(images).permute(0, 3, 1, 2), labels)

    def made(index: int) -> Tensor:
        try:
            return RECIPES[recipe](fromarray(images[index]))
        except DatasetError as error:
            raise DatasetError(f"{path}, image {index}: {error}") from error

    return StreamedImages(name, split, labels, made)
