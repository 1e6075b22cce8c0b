"""Figures of a store. Those of numbers come from its rows; images and trajectories are sampled again, from the same
noise, by what the rows say of their samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import psnr_values, to_uint8
from fastsample.bench.metrics.solution import Reference, reference_for, solution_at
from fastsample.bench.metrics.trajectories import curvature, distances, states
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model, open_model, shipped_path
from fastsample.models.denoiser import Recorder
from fastsample.models.public.cards import Card, cards
from fastsample.models.public.manifest import existing
from fastsample.results import figures
from fastsample.results.commands import classifier_scale_of, labels_of
from fastsample.results.evidence import Comparison
from fastsample.results.recommend import with_seconds
from fastsample.results.statistics import mean_interval
from fastsample.results.store import Row, Store
from fastsample.solvers.grids import Grid
from fastsample.solvers.learned.shelf import find_table, table_plan
from fastsample.solvers.solver import get

__all__ = ["IMAGES", "Replay", "curvature_of", "errors_of", "matrix_of", "picture"]

IMAGES = {"samples": 4, "error": 16, "curvature": 32}  # of each kind of picture that samples again


class _RecordingSampler(Sampler):
    """Keeps the points of its last run."""

    last: Recorder

    def denoiser(self, cell: Cell, indices: list[int]) -> Recorder:
        self.last = Recorder(super().denoiser(cell, indices))
        return self.last


class Replay:
    """Runs rows of a store again on a few of their samples.

    Args:
        store: that holds them.
        device: as `bench --device` takes it.
        checkpoints: files of models that rows were made of and that have no name.

    Raises:
        ValueError: for a device or a checkpoint that is not there.
    """

    def __init__(self, store: Store, device: str = "auto", checkpoints: Sequence[str] | None = None) -> None:
        self.store, self.sampler = store, _RecordingSampler(choose_device(device))
        opened = (open_model(file, home=data_home()) for file in checkpoints or ())
        self._models = {(model.id, 0.0): model for model in opened}  # by name and scale of classifier guidance
        self._solved: tuple[tuple[object, ...], tuple[np.ndarray, torch.Tensor]] | None = None  # the last reference

    def cell(self, cell: str) -> Cell:
        """The cell of a finished row, to be sampled.

        Raises:
            ValueError: if it cannot be repeated here: its model is not here or another one by now, or its solver or
                grid gives other times. Nothing is downloaded, and no word of the row is taken for a file.
        """
        row = self.store.row(cell)
        model = self._model(row)
        if "table" in row.protocol:
            table = find_table(row.solver, model, row.nfe_asked, row.guidance, transfer="transfer" in row.options)
            plan = table_plan(table)
        else:
            # The times of a file are in the row; the file itself is not looked for.
            grid = Grid(row.grid, times=tuple(row.times)) if row.grid.startswith("file:") else row.grid
            try:
                table, plan = None, get(row.solver).plan(model.path, row.nfe_asked, grid, **row.options)
            except TypeError as error:
                raise ValueError(f"row {row.cell} has options that {row.solver} cannot have: {error}") from None
        same = len(plan.times) == len(row.times) and np.allclose(plan.times, row.times)
        if not same or (table and table.sha256 != row.protocol["table"]):
            raise ValueError(f"{row.title} at NFE {row.nfe_asked} is another one by now than in row {row.cell}")
        asked = row.guidance, row.samples, row.seed, row.precision, labels_of(row)
        steps = row.protocol.get("reference steps")
        return Cell(model, plan, row.options, *asked, (), table, int(steps) if steps else None)

    def split(self, found: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """The evidence on models that are here, and for each of the others why it is left out."""
        kept, reasons = [], []
        for _, group in found.groupby("model", sort=False):
            try:
                self._model(self.store.row(group["cells"].iloc[0][0]))
                kept.append(group)
            except ValueError as error:
                reasons.append(str(error))
        return pd.concat(kept) if kept else found[:0], reasons

    def samples(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """The cell's samples, as images where the model makes images."""
        return self.sampler.images(cell, self.sampler.sample(cell, indices)[0])

    def run(self, cell: Cell, indices: list[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The points at which the cell's solver evaluates the model, and its result, on the linear path."""
        x, _, _ = self.sampler.sample(cell, indices)
        ends = [] if cell.plan.denoise else [(cell.plan.end, x)]  # else x is none of the trajectory's points
        return states(cell.plan.path, [*self.sampler.last.points, *ends])

    def reference(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """The reference solutions that the cell's samples are measured against, as images."""
        path, (_, z) = cell.plan.path, self.trajectory(cell, indices)
        x = (path.alpha(path.t_data) + path.sigma(path.t_data)) * z[-1]
        denoised = self.sampler.denoiser(self._exact(cell)[0], indices).x0(x, path.t_data)
        return self.sampler.images(cell, solution_at(cell.plan.end, path, x, denoised))

    def trajectory(self, cell: Cell, indices: list[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectory of the reference solution, on the linear path."""
        exact, reference = self._exact(cell)
        key = (reference.id, *indices)
        if self._solved is None or self._solved[0] != key:
            denoiser, start = self.sampler.denoiser(exact, indices), self.sampler.start(exact, indices)
            self._solved = key, reference.trajectory(denoiser, start)
        return self._solved[1]

    def _exact(self, cell: Cell) -> tuple[Cell, Reference]:
        """The cell in the precision of its reference, and this."""
        device = self.sampler.device.type
        reference = reference_for(
            cell.model, cell.seed, cell.precision, cell.guidance, cell.labels, device, cell.reference_steps
        )
        return replace(cell, precision=reference.precision), reference

    def _model(self, row: Row) -> Model:
        scale = classifier_scale_of(row)
        if (row.model, scale) not in self._models:
            if shipped_path(row.model) is None:
                raise ValueError(f"{row.model} is no model of the package; --checkpoint FILE names it for this command")
            name, _, digits = row.model.partition("@")
            for card in _needed(name, scale):
                if not (digits and card.id == name) and not existing(card, data_home()):
                    raise ValueError(f"{card.id} is not here; `fastsample models fetch {card.id}` fetches it")
            self._models[row.model, scale] = open_model(row.model, home=data_home(), classifier_scale=scale)
        model = self._models[row.model, scale]
        mine = model.sha256, model.conditions, model.classifier
        if mine != (row.checkpoint_sha256, *(row.protocol.get(k, "") for k in ("model card", "classifier guidance"))):
            raise ValueError(f"the {row.model} that is here is not the checkpoint of row {row.cell}")
        return model


def _needed(model: str, classifier_scale: float) -> list[Card]:
    """The cards of what has to be here for a model: itself, its first stage, and the classifier that guides it."""
    if (card := cards().get(model)) is None:
        return []
    names = [card.first_stage, card.classifier if classifier_scale else None]
    return [card, *(cards()[name] for name in names if isinstance(name, str) and name)]


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
        kind: `quality` of solvers against evaluations or seconds; `samples`, images of the same noise; `error`, the
            distance to the reference along the trajectory; `curvature` of the models' trajectories.
        metrics: of `quality`, full names or kinds.
        against: of `quality`, `nfe` or `seconds`.
        models, solvers, where: for `results.overview.select`.
        nfe: only these budgets; by default all, and the middle one for `error`.
        images: sampled again; by default as `IMAGES` says.
        device, checkpoints: for `Replay`.
        say: is called with a line for each model that is left out, because it is not here.

    Raises:
        ValueError: where nothing is left to show, numbers cannot be compared, or a row cannot be repeated.
    """
    if kind not in ("quality", *IMAGES):
        raise ValueError(f"a picture is of {', '.join(('quality', *IMAGES))}, not {kind!r}")
    if kind == "quality" and images:
        raise ValueError("--images is of pictures that sample again, and quality is drawn from the rows")
    if kind != "quality" and against != "nfe":
        raise ValueError(f"--against is of quality, not of {kind}")
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
    found, missing = replay.split(found)
    if found.empty:
        raise ValueError("; ".join(missing))
    for reason in missing:
        say(f"without a model: {reason}")
    if kind == "samples":
        return matrix_of(found, replay, count)
    if kind == "error":
        return figures.errors(errors_of(found, replay, count))
    return figures.curvature(curvature_of(found, replay, count))


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
            x = replay.samples(cell, indices)
            psnr = psnr_values(x, exact).mean()
            places[str(name), f"NFE {cell.plan.nfe}"] = figures.Place(_pixels(x), f"{psnr:.1f} dB")
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
        exact = replay.trajectory(replay.cell(group["cells"].iloc[0][0]), indices)
        for _, one in group.iterrows():
            cell = replay.cell(one["cells"][0])
            if cell.plan.solver.adaptive:
                times, error = _own_times(replay, cell, indices, exact)
            else:
                times, z = replay.run(cell, indices)
                error = np.sqrt(distances(times, z, exact).mean(1))
            facts = {name: one[name] for name in ("model", "nfe", "title", "grid")}
            parts.append(pd.DataFrame({"time": times, "error": error}).assign(**facts))
    return pd.concat(parts, ignore_index=True)


@torch.inference_mode()
def curvature_of(found: pd.DataFrame, replay: Replay, images: int) -> pd.DataFrame:
    """The curvature of each model's trajectories, of its reference solution in 100 uniform steps of the linear path.

    Args:
        found: evidence on one metric.
        images: over whose trajectories the mean is taken.

    Returns:
        Columns model, time, value, low, high, total, low_total and high_total, as `results.figures.curvature` takes
        them; see `bench.metrics.trajectories.curvature` for the definition.
    """
    parts = []
    for model, group in found.groupby("model", sort=False):
        times, z = replay.trajectory(replay.cell(group["cells"].iloc[0][0]), list(range(images)))
        bends = curvature(times, z)
        steps = [mean_interval(values) for values in bends]
        total = mean_interval(np.average(bends, axis=0, weights=np.diff(times)))
        parts.append(pd.DataFrame({
            "model": model, "time": (times[1:] + times[:-1]) / 2, "value": [step.value for step in steps],
            "low": [step.low for step in steps], "high": [step.high for step in steps],
            "total": total.value, "low_total": total.low, "high_total": total.high,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _own_times(
    replay: Replay, cell: Cell, indices: list[int], exact: tuple[np.ndarray, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """(times, errors) of samples that were asked for at times of their own, over groups of neighbouring points."""
    found = []
    for place, index in enumerate(indices):
        times, z = replay.run(cell, [index])
        found.append(np.stack([times, distances(times, z, (exact[0], exact[1][:, place : place + 1]))[:, 0]]))
    points = np.concatenate(found, axis=1)
    groups = np.array_split(points[:, points[0].argsort()], points.shape[1] // len(indices), axis=1)
    times, squares = np.stack([group.mean(1) for group in groups], axis=1)
    return times, np.sqrt(squares)


def _pixels(x: torch.Tensor) -> np.ndarray:
    return to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
