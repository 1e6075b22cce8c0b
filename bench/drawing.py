"""Image grids."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from torchvision.utils import save_image

from fastsample.bench.cells import Cell, cell_of, plan_cells
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.bench.worker import BATCH
from fastsample.datasets.files import write_atomically
from fastsample.datasets.levels import to_uint8
from fastsample.models.catalogue import Model

__all__ = ["draw", "drawn"]

_LARGEST = 2**27  # values of a picture


def drawn(model: Model, request: Request) -> Iterator[torch.Tensor]:
    """The samples of a request's one sampler on an open model, decoded and not clipped, batch by batch on the CPU.

    Raises:
        ValueError: for a request of several cells, or one that cannot be carried out.
        FloatingPointError: if a sample is not finite.
    """
    check_precision(request.precision, choose_device(request.device))
    cell = cell_of(model, request)
    if cell.plan.remark:
        warnings.warn(cell.plan.remark, stacklevel=3)
    for images in _images(cell, request):
        yield images.cpu()


@torch.inference_mode()
def _images(cell: Cell, request: Request) -> Iterator[torch.Tensor]:
    sampler, size = Sampler(choose_device(request.device)), request.batch_size or BATCH
    for low in range(0, request.samples, size):
        indices = list(range(low, min(low + size, request.samples)))
        yield sampler.images(cell, sampler.sample(cell, indices)[0])


@torch.inference_mode()
def draw(request: Request, out: Path, console: Console | None = None) -> str:
    """Sample the one cell of a request and write its images as a grid; returns a line that says what was done.

    The progress of a download is shown on the console.

    Raises:
        ValueError: if the model's samples are no images, too many for a picture, or the file cannot be written.
        FloatingPointError: if a sample or an image is not finite; there is no file then.
    """
    if out.suffix.lower() != ".png":
        raise ValueError(f"pictures of samples are written as .png, not {out.name!r}")
    (cell, *others), _ = plan_cells(request, (), console)
    if others:
        raise ValueError(f"a picture is of one model, solver, grid and NFE; {1 + len(others)} are asked for")
    if len(cell.model.shape) != 3:
        raise ValueError(f"samples of {cell.model.id} are no images: their shape is {cell.model.shape}")
    most = _LARGEST // math.prod(cell.model.image_shape)
    if request.samples > most:
        raise ValueError(f"a picture has at most {most} images of {cell.model.id}, not {request.samples}")
    parts = _images(cell, request)
    rows, images = math.ceil(math.sqrt(request.samples)), torch.cat([to_uint8(part).cpu() for part in parts]) / 255
    write_atomically(out, lambda stream: save_image(images, stream, nrow=rows, padding=1, format="png"))
    return f"{request.samples} samples of {cell} in {out}"
