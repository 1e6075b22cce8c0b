"""Figures of a store. Those of numbers come from its rows; images and trajectories are sampled again, from the same
noise, by what the rows say of their samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from fastsample.bench.cells import Cell
from fastsample.bench.learning.transfer import transfer_of, transfers
from fastsample.bench.metrics.error import psnr_values
from fastsample.bench.metrics.trajectories import curvature, distances, states
from fastsample.bench.replay import Replay
from fastsample.datasets.levels import to_uint8
from fastsample.results.commands import SHAPE
from fastsample.results.evidence import Comparison
from fastsample.results.forms import figures
from fastsample.results.recommend import with_seconds
from fastsample.results.report import Picture, attempt
from fastsample.results.statistics import mean_interval
from fastsample.results.store import Store

__all__ = ["IMAGES", "curvature_of", "errors_of", "matrix_of", "picture", "sampled"]

IMAGES = {"samples": 4, "error": 16, "curvature": 32}  # of each kind of picture that samples again


def picture(
    store: Store,
    kind: str = "quality",
    *,
    metrics: Sequence[str] | None = None,
    against: str = "nfe",
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    nfe: Sequence[int] | None = None,
    where: Sequence[str] | None = None,
    images: int | None = None,
    device: str = "auto",
    checkpoints: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Figure:
    """A figure of a store.

    Args:
        kind: `quality` of solvers against evaluations or seconds; `transfer` of learned tables; `samples`, images of
            the same noise; `error`, the distance to the reference along the trajectory; `curvature` of the models'
            trajectories.
        metrics: of `quality` and `transfer`, full names or kinds.
        against: of `quality`, `nfe` or `seconds`; of `transfer`, `nfe` or `best`.
        models, solvers, where: for `results.overview.select`.
        nfe: only these budgets; by default all, and the middle one for `error`.
        images: sampled again; by default as `IMAGES` says.
        device, checkpoints: for `Replay`.
        say: is called with a line for each model that is left out, because it is not here.

    Raises:
        ValueError: where nothing is left to show, numbers cannot be compared, or a row cannot be repeated.
    """
    kinds = ("quality", "transfer", *IMAGES)
    if kind not in kinds:
        raise ValueError(f"a picture is of {', '.join(kinds)}, not {kind!r}")
    if kind not in IMAGES and images:
        raise ValueError(f"--images is of pictures that sample again, and {kind} is drawn from the rows")
    if kind == "transfer":
        asked = dict(against=against, models=models, solvers=solvers, nfe=nfe, where=where)
        return transfer_of(transfers(store, metrics, **asked))  # type: ignore[arg-type]
    if kind != "quality" and against != "nfe":
        raise ValueError(f"--against is of quality and transfer, not of {kind}")
    comparison = Comparison(store)
    rows = comparison.rows(models, solvers, where)
    budgets = sorted(rows["nfe_asked"].unique())
    if nfe or kind == "error":
        wanted = nfe or budgets[len(budgets) // 2 :][:1]
        rows = rows[rows["nfe_asked"].isin(wanted)]
        if rows.empty:
            known = ", ".join(map(str, budgets))
            raise ValueError(f"no row has NFE {' or '.join(map(str, wanted))}; there are {known}")
    found = comparison.evidence(rows, metrics)
    if kind == "quality":
        return figures.quality(with_seconds(found, rows) if against == "seconds" else found, against=against)
    found = found[found["metric"] == found["metric"].iloc[0]]
    replay, count = Replay(store, device, checkpoints), images or IMAGES[kind]
    for model, cells in zip(found["model"], found["cells"], strict=True) if kind == "samples" else ():
        if shape := store.row(cells[0]).protocol.get(SHAPE):  # known before a model is asked for
            raise ValueError(f"samples of {model} are no images: their shape is {shape}")
    found, missing = replay.split(found)
    if found.empty:
        raise ValueError("; ".join(missing) or "these rows are of images from elsewhere, which are not drawn again")
    for reason in missing:
        say(f"without a model: {reason}")
    if kind == "samples":
        return matrix_of(found, replay, count)
    if kind == "error":
        return figures.errors(errors_of(found, replay, count))
    return figures.curvature(curvature_of(found, replay, count))


def sampled(
    found: pd.DataFrame, replay: Replay, images: int, tell: Callable[[str], None] = lambda _: None
) -> list[Picture]:
    """Samples, errors along the way and curvature of each model; `tell` hears what is begun."""
    pictures = []
    for model, mine in replay.measured(found).groupby("model", sort=False):
        budgets = sorted(mine["nfe"].unique())
        here = mine[mine["nfe"] == budgets[len(budgets) // 2]]
        solvers = ", ".join(dict.fromkeys(mine["title"]))
        pictures += [
            attempt(
                f"Samples of {model}",
                "The same noise everywhere; last the reference solution. Under each: PSNR of these images against it.",
                f"Images of the same noise; rows: {solvers}; columns: NFE {', '.join(map(str, budgets))}, reference.",
                matrix_of, mine, replay, images, wide=True, tell=tell,
            ),
            attempt(
                f"Errors along the way on {model}",
                "Where each solver evaluates the model: root mean square distance per dimension to the fine reference, "
                "on the linear path.",
                f"Line chart of the distance to the reference trajectory for {solvers}.",
                lambda *of: figures.errors(errors_of(*of)), here, replay, IMAGES["error"], tell=tell,
            ),
            attempt(
                f"Curvature of {model}",
                "Deviation of the slope from the chord along the reference trajectory, on the linear path; its mean is "
                "the curvature of arXiv 2301.12003. Zero: one Euler step is exact.",
                "Line chart of the curvature against time.",
                lambda *of: figures.curvature(curvature_of(*of)), mine, replay, IMAGES["error"], tell=tell,
            ),
        ]  # fmt: skip
    return pictures


@torch.inference_mode()
def matrix_of(found: pd.DataFrame, replay: Replay, images: int) -> Figure:
    """The same noise across solvers (rows) and budgets (columns), and in the last column the reference.

    Under each place stands the mean PSNR of the images shown, which are those of the rows.

    Args:
        found: evidence on one metric and one model.
        images: in each place.

    Raises:
        ValueError: for several models, samples that are no images, or a row that cannot be repeated.
    """
    if found["model"].nunique() > 1:
        raise ValueError(f"one matrix shows one model; choose one with --model: {', '.join(found['model'].unique())}")
    indices, model = list(range(images)), found["model"].iloc[0]
    places: dict[tuple[str, str], figures.Place | None] = {}
    for name, line in found.groupby(figures.series_names(found), sort=False):
        places |= {(str(name), f"NFE {nfe}"): None for nfe in sorted(found["nfe"].unique())}
        cells = [replay.cell(cells[0]) for cells in line["cells"]]
        if len(cells[0].model.shape) != 3:
            raise ValueError(f"samples of {model} are no images: their shape is {cells[0].model.shape}")
        exact = replay.reference(cells[0], indices)
        for cell in cells:
            x = replay.run(cell, indices).images
            psnr = psnr_values(x, exact).mean()
            places[str(name), f"NFE {cell.plan.nfe}"] = figures.Place(_pixels(x), f"{psnr:.1f} dB, these {images}")
        places[str(name), "reference"] = figures.Place(_pixels(exact))
    return figures.image_matrix(places, model)


@torch.inference_mode()
def errors_of(found: pd.DataFrame, replay: Replay, images: int) -> pd.DataFrame:
    """Distance from the fine reference trajectory where each solver evaluates the model, and at its end.

    Stages inside a step count like its ends: a Runge-Kutta method is off the trajectory on purpose there. The samples
    of an adaptive solver have times of their own: as many neighbouring points as there are samples make one.

    Args:
        found: evidence on one metric.
        images: over which, and over whose dimensions, the error is the root of the mean square.

    Returns:
        Columns model, nfe, title, grid, time (of the linear path), error (in z of the linear path, where noise has
        standard deviation 1 and images lie in [-1, 1]).
    """
    indices, parts = list(range(images)), []
    for _, group in found.groupby("model", sort=False):
        exact = replay.tools.trajectory(replay.cell(group["cells"].iloc[0][0]), indices)
        for _, one in group.iterrows():
            cell = replay.cell(one["cells"][0])
            if cell.plan.solver.adaptive:
                times, error = _own_times(replay, cell, indices, exact)
            else:
                times, z = _points(replay, cell, indices)
                error = np.sqrt(distances(times, z, exact).mean(1))
            facts = {name: one[name] for name in ("model", "nfe", "title", "grid", "trained_on")}
            parts.append(pd.DataFrame({"time": times, "error": error}).assign(**facts))
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode()
def curvature_of(found: pd.DataFrame, replay: Replay, images: int) -> pd.DataFrame:
    """The curvature of each model's trajectories, of its reference solution in 100 uniform steps of the linear path.

    Args:
        found: evidence on one metric.
        images: over whose trajectories the mean is taken.

    Returns:
        Columns model, time, value, low, high, total, low_total and high_total, as `forms.figures.curvature` takes
        them; see `bench.metrics.trajectories.curvature` for the definition.
    """
    parts = []
    for model, group in found.groupby("model", sort=False):
        times, z = replay.tools.trajectory(replay.cell(group["cells"].iloc[0][0]), list(range(images)))
        bends = curvature(times, z)
        steps = [mean_interval(values) for values in bends]
        total = mean_interval(np.average(bends, axis=0, weights=np.diff(times)))
        parts.append(pd.DataFrame({
            "model": model, "time": (times[1:] + times[:-1]) / 2, "value": [step.value for step in steps],
            "low": [step.low for step in steps], "high": [step.high for step in steps],
            "total": total.value, "low_total": total.low, "high_total": total.high,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _points(replay: Replay, cell: Cell, indices: list[int]) -> tuple[np.ndarray, torch.Tensor]:
    """The points at which the cell's solver asks the model, and its result, on the linear path."""
    batch = replay.run(cell, indices)
    assert batch.walk
    ends = [] if cell.plan.denoise else [(cell.plan.end, batch.x)]  # else x is none of the trajectory's points
    return states(cell.plan.path, [*batch.walk.points, *ends])


def _own_times(
    replay: Replay, cell: Cell, indices: list[int], exact: tuple[np.ndarray, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """(times, errors) of samples that were asked for at times of their own, over groups of neighbouring points."""
    found = []
    for place, index in enumerate(indices):
        times, z = _points(replay, cell, [index])
        found.append(np.stack([times, distances(times, z, (exact[0], exact[1][:, place : place + 1]))[:, 0]]))
    points = np.concatenate(found, axis=1)
    groups = np.array_split(points[:, points[0].argsort()], points.shape[1] // len(indices), axis=1)
    times, squares = np.stack([group.mean(1) for group in groups], axis=1)
    return times, np.sqrt(squares)


def _pixels(x: torch.Tensor) -> np.ndarray:
    return to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
