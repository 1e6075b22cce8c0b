"""Image grids, and samples as an array."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torchvision.utils import save_image

from fastsample.bench.cells import Cell, cell_of, plan_cells
from fastsample.bench.jobs.ledger import Ledger
from fastsample.bench.jobs.stages import STAGES, Stages
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.bench.worker import BATCH
from fastsample.datasets.files import write_atomically
from fastsample.datasets.levels import to_uint8
from fastsample.models.catalogue import Model

__all__ = ["draw", "drawn"]

_LARGEST = 2**27  # values of a picture
_READABLE = 400  # dots, its least width


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
def _images(cell: Cell, request: Request, ledger: Ledger | None = None) -> Iterator[torch.Tensor]:
    sampler, size = Sampler(choose_device(request.device)), request.batch_size or BATCH
    for low in range(0, request.samples, size):
        indices = list(range(low, min(low + size, request.samples)))
        denoiser = sampler.denoiser(cell, indices)
        counted = ledger.counting(denoiser, "sampling") if ledger else denoiser
        yield sampler.images(cell, sampler.sample(cell, indices, counted)[0])


@torch.inference_mode()
def draw(request: Request, out: Path, console: Console | None = None, scale: int = 0) -> str:
    """Sample the one cell of a request and write its images as a grid, or any samples as an array in an .npy.

    Returns a line that says what was done. An array is float32 [n, *shape], decoded and not clipped.

    The progress of a download is shown on the console. Pixels are squares of `scale` dots, by default of as many as
    make the picture at least 400 dots wide.

    Raises:
        ValueError: if the model's samples are no images, too many for a picture, or the file cannot be written.
        FloatingPointError: if a sample or an image is not finite; there is no file then.
    """
    if out.suffix.lower() not in (".png", ".npy"):
        raise ValueError(f"pictures of samples are written as .png, and arrays of them as .npy, not {out.name!r}")
    with Stages(console or Console(quiet=True), "opening the model") as stages:
        return _drawn(request, out, console, stages, scale)


def _drawn(request: Request, out: Path, console: Console | None, stages: Stages, scale: int) -> str:
    (cell, *others), _ = plan_cells(request, (), console)
    if others:
        raise ValueError(f"a picture is of one model, solver, grid and NFE; {1 + len(others)} are asked for")
    array = out.suffix.lower() == ".npy"
    if len(cell.model.image_shape) != 3 and not array:
        shape = cell.model.image_shape
        raise ValueError(
            f"samples of {cell.model.id} are no images: their shape is {shape}; -o {out.stem}.npy keeps them"
        )
    most = _LARGEST // (math.prod(cell.model.image_shape) * max(1, scale) ** 2)
    if request.samples > most:
        raise ValueError(f"a file has at most {most} samples of {cell.model.id}, not {request.samples}")
    ledger = Ledger(tick=lambda purpose, evaluations: stages.at(STAGES[purpose], evaluations))
    with stages.counting(request.samples * cell.plan.nfe):
        keep = torch.Tensor.float if array else to_uint8
        images = torch.cat([keep(part).cpu() for part in _images(cell, request, ledger)])
    told = f"{request.samples} samples of {cell} in {out}"
    if array:
        write_atomically(out, lambda stream: np.save(stream, images.numpy()))
        return told
    images = images / 255
    rows = math.ceil(math.sqrt(request.samples))
    factor = scale or math.ceil(_READABLE / (rows * images.shape[3]))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    write_atomically(out, lambda stream: save_image(images, stream, nrow=rows, padding=factor, format="png"))
    return told
