"""How matrix products and convolutions in float32 are computed on a GPU: in float32, or in TF32's 10 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch.backends import cuda, cudnn

__all__ = ["matmul"]


@contextmanager
def matmul(precision: Literal["float32", "tf32"]) -> Iterator[None]:
    """Matrix products and convolutions of float32 in that precision; what was set before comes back at the end.

    PyTorch leaves TF32 on for convolutions, and with it a difference of two outputs is noise below 1e-3 of their size.
    It is a setting of the process, so of all its threads.
    """
    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = before
