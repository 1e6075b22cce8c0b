"""The images of a finished cell as files that other programs read: a folder of PNG, or an npz like guided diffusion's.

The npz has one array `arr_0`, uint8 [n, height, width, channels], stored as it is; image i of the folder is the i-th.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy
from PIL.Image import fromarray

from fastsample.datasets.files import write_atomically

__all__ = ["save_images", "saved_images"]


def saved_images(store: Path, cell: str, form: str) -> Path:
    """Where the images of a cell lie in a store: CELL.npz, or for `png` the folder CELL."""
    return store / "images" / (f"{cell}.npz" if form == "npz" else cell)


def save_images(out: Path, n: int, shape: Sequence[int], batches: Iterable[np.ndarray | None]) -> None:
    """Write images, whole or not at all, in the place of what is there.

    Args:
        out: an .npz, or a folder for PNG.
        shape: (channels, height, width) of each of the n images.
        batches: uint8 [k, channels, height, width], in order; None for one that cannot be read.

    Raises:
        OSError: for a batch that is None, or where nothing can be written.
    """
    channels, height, width = shape
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        write_atomically(out, lambda stream: _pack(stream, (n, height, width, channels), batches))
        return
    part = out.with_name(f"{out.name}.{uuid4().hex[:8]}")
    part.mkdir()
    try:
        digits, number = max(5, len(str(n - 1))), 0  # sorted as text they are in order
        for batch in batches:
            for image in _lines(batch):
                fromarray(image if channels > 1 else image[..., 0]).save(part / f"{number:0{digits}}.png")
                number += 1
        shutil.rmtree(out, ignore_errors=True)
        with suppress(OSError):  # another process was faster, with the same images
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _pack(stream: BinaryIO, shape: tuple[int, ...], batches: Iterable[np.ndarray | None]) -> None:
    """Write an npz batch by batch, so that one of them is in memory."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(stream, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as array:
        npy.write_array_header_1_0(array, facts)
        for batch in batches:
            array.write(_lines(batch).tobytes())


def _lines(batch: np.ndarray | None) -> np.ndarray:
    """A batch with the channels last, contiguous."""
    if batch is None:
        raise OSError("the images of some samples cannot be read")
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
