"""Real images on the way to noise and back: how well a sampler's steps, walked both ways, reconstruct them.

The experiment is that of rfpp (arXiv 2405.20320): an image x is the state alpha x at the last time of the plan, without
noise; the solver walks the plan's times backwards to the noise, and forwards again. Each way has half of the
evaluations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from fastsample.bench.cells import Cell, cell_of
from fastsample.bench.metrics.error import finite, psnr_values
from fastsample.bench.metrics.reference import data_set
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.datasets.home import expanded
from fastsample.datasets.image_set import Images
from fastsample.datasets.images import dataset_named
from fastsample.datasets.levels import to_signal
from fastsample.models.catalogue import Model, open_model
from fastsample.models.denoiser import Denoiser
from fastsample.results.statistics import FEWEST, mean_of

__all__ = ["encode"]


class _Straight(Denoiser):
    """Says that data are 2 and noise is 1 whatever the state: at t it is 2 alpha + sigma, on a straight line."""

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return 2 * p + r + 0 * x


def encode(request: Request, images: str | None = None, console: Console | None = None) -> pd.DataFrame:
    """One line for each solver and NFE of a request on its one model.

    Columns: model, solver, grid, NFE (asked, of both ways), made (evaluations of both ways), images, and of the
    reconstructions PSNR [dB], the mean over images, low, high (its 95 % interval; NaN for few images); noise, the
    standard deviation of the state at the noise end over that of the prior, 1 where the images become noise.

    Args:
        images: a data set, a folder, or folder:PATH[@PREPROCESSING]; None for the model's own data, the test images
            where there are some.
        console: where the progress of a download is shown.

    Raises:
        ValueError: for a solver that cannot walk back, or images that are not the model's.
    """
    (name, *others) = request.model
    if others:
        raise RequestError("encode is of one model")
    model = open_model(name, console=console)
    if len(model.shape) != 3 or model.shape != model.image_shape:
        raise RequestError(f"samples of {model.id} are no images, but states of shape {model.shape}: it encodes none")
    found = _images(model, images)
    if len(found) < request.samples:
        raise RequestError(f"{found.name} {found.split} has {len(found):,} images, not {request.samples:,}")
    cells = []
    for solver in request.solver:
        for nfe in request.nfe:
            if nfe % 2:
                raise RequestError(f"NFE is even, half there and half back, not {nfe}")
            one = request.model_copy(update={"solver": (solver,), "nfe": (nfe // 2,)})
            cells.append(cell_of(model, one))
            _check(cells[-1])
    sampler = Sampler(choose_device(request.device))
    return pd.DataFrame([_line(cell, found, sampler, request.batch_size or 64) for cell in cells])


def _images(model: Model, asked: str | None) -> Images:
    if asked:
        return dataset_named(f"folder:{asked}" if expanded(asked).exists() else asked, "test")
    if not (name := data_set(model.data)):
        raise RequestError(f"the data of {model.id} are not known here: --images names some")
    try:
        return dataset_named(name, "test")
    except ValueError as error:
        if "split" not in str(error):
            raise
        return dataset_named(name, "train")


def _check(cell: Cell) -> None:
    """Raise RequestError for a plan that does not walk back: a solver of the ODE does, exactly, on a straight line."""
    plan = cell.plan
    kinds = {
        "it is stochastic": plan.solver.stochastic,
        "it depends on the sample": plan.solver.adaptive or plan.solver.nonlinear,
        "it is a learned table": cell.table, "denoise and afs replace a step at one end": plan.denoise or plan.afs,
    }  # fmt: skip
    why = next((why for why, so in kinds.items() if so), "")
    start, end = (2 * plan.own.alpha(t) + plan.own.sigma(t) for t in (plan.times[0], plan.times[-1]))
    try:
        back = math.nan if why else plan.solver.solve(_Straight(plan.own), end, plan.times[::-1], **plan.arguments)
    except (ArithmeticError, ValueError):
        back = math.nan
    if not math.isclose(back, start, rel_tol=1e-6):
        why = why or "its steps lead to data alone"
        raise RequestError(f"solver {cell.sampler} does not walk back to the noise: {why}")


@torch.inference_mode()
def _line(cell: Cell, images: Images, sampler: Sampler, size: int) -> dict[str, object]:
    plan, model = cell.plan, cell.model
    psnr, squares, made, first = list[np.ndarray](), list[float](), 0, 0
    for levels in images.batches(size):
        levels = levels[: cell.samples - first]
        if levels.shape[1:] != model.shape:
            raise RequestError(f"{images.name} holds images {tuple(levels.shape[1:])}, and {model.id} {model.shape}")
        labels = images.labels[first : first + len(levels)] if model.num_classes else None
        if labels is not None and int(labels.max()) >= model.num_classes:
            raise RequestError(f"{images.name} has classes that {model.id} with its {model.num_classes} has not")
        denoiser = model.make(sampler.network(cell), labels, cell.protocol.guidance, cell.protocol.precision)
        view, x = denoiser.on(plan.own), to_signal(levels).to(sampler.device, cell.dtype)
        noise = plan.solver.solve(view, plan.own.alpha(plan.times[-1]) * x, plan.times[::-1], **plan.arguments)
        back = plan.solver.solve(view, noise, plan.times, **plan.arguments) / plan.own.alpha(plan.times[-1])
        finite("the network or the solver returned", back)
        psnr.append(psnr_values(back, x))
        squares += noise.double().square().flatten(1).mean(1).tolist()
        made, first = denoiser.evaluations(1)[0], first + len(levels)
        if first == cell.samples:
            break
    values = np.concatenate(psnr)
    known = mean_of(values).interval() if len(values) >= FEWEST else None
    return {
        "model": model.id, "solver": cell.sampler, "grid": str(plan.grid), "NFE": 2 * plan.nfe, "made": made,
        "images": len(values), "PSNR": float(values.mean()), "low": known.low if known else math.nan,
        "high": known.high if known else math.nan,
        "noise": math.sqrt(np.mean(squares)) / math.hypot(plan.own.sigma(plan.times[0]), plan.own.alpha(plan.times[0])),
    }  # fmt: skip
