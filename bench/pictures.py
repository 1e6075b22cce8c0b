"""Figures of a store. Those of numbers come from its rows; images and trajectories are sampled again, from the same
noise, by what the rows say of their samplers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from fastsample.bench.cells import Cell
from fastsample.bench.comparison import Comparison
from fastsample.bench.learned import find_table, table_plan
from fastsample.bench.metrics import psnr_values, to_uint8
from fastsample.bench.reference import reference_for
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.bench.trajectories import curvature, distances, states
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model, open_model
from fastsample.models.conversion import converted
from fastsample.models.denoiser import Recorder
from fastsample.models.public import cards
from fastsample.results import figures
from fastsample.results.commands import classifier_scale_of, labels_of
from fastsample.results.recommend import with_seconds
from fastsample.results.statistics import mean_interval
from fastsample.results.store import Row, Store
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
        self._solved: tuple[tuple[object, ...], Recorder, torch.Tensor] | None = None  # the last reference solution

    def cell(self, cell: str) -> Cell:
        """The cell of a finished row, to be sampled.

        Raises:
            ValueError: if it cannot be repeated here: its model is not here or another one by now, or its solver or
                grid gives other times. Nothing is downloaded.
        """
        row = self.store.row(cell)
        model = self._model(row)
        if "table" in row.protocol:
            table = find_table(row.solver, model, row.nfe_asked, row.guidance, transfer="transfer" in row.options)
            plan = table_plan(table)
        else:
            table, plan = None, get(row.solver).plan(model.path, row.nfe_asked, row.grid, **row.options)
        same = len(plan.times) == len(row.times) and np.allclose(plan.times, row.times)
        if not same or (table and table.sha256 != row.protocol["table"]):
            raise ValueError(f"{row.title} at NFE {row.nfe_asked} is another one by now than in row {row.cell}")
        asked = row.guidance, row.samples, row.seed, row.precision, labels_of(row)
        return Cell(model, plan, row.options, *asked, (), table)

    def samples(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """The cell's samples, as images where the model makes images."""
        return cell.model.decode(self.sampler.sample(cell, indices)[0])

    def run(self, cell: Cell, indices: list[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The points at which the cell's solver evaluates the model, and its result, on the linear path."""
        x, _, _ = self.sampler.sample(cell, indices)
        ends = [] if cell.plan.denoise else [(cell.plan.path.t_data, x)]  # else x is none of the trajectory's points
        return states(cell.plan.path, [*self.sampler.last.points, *ends])

    def reference(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """The reference solutions that the cell's samples are measured against, as images."""
        solver, x = self._solve(cell, indices)
        return cell.model.decode(solver.base.x0(x, cell.plan.path.t_data) if cell.plan.denoise else x)

    def trajectory(self, cell: Cell, indices: list[int]) -> tuple[np.ndarray, torch.Tensor]:
        """The trajectory of the reference solution, on the linear path."""
        solver, x = self._solve(cell, indices)
        return states(cell.plan.path, [*solver.points, (cell.plan.path.t_data, x)])

    def _solve(self, cell: Cell, indices: list[int]) -> tuple[Recorder, torch.Tensor]:
        reference = reference_for(cell.model, cell.seed, cell.precision, cell.guidance, cell.labels)
        key = (reference.id, *indices)
        if self._solved is None or self._solved[0] != key:
            recorder = self.sampler.denoiser(cell, indices)
            self._solved = key, recorder, reference.plan(recorder, self.sampler.start(cell, indices))
        return self._solved[1:]

    def _model(self, row: Row) -> Model:
        scale = classifier_scale_of(row)
        if (row.model, scale) not in self._models:
            card, guide = cards().get(row.model), row.protocol.get("classifier guidance", "")
            needed = [(card, row.checkpoint_sha256)] if card else []
            needed += [(cards()[name], sha256) for name, sha256 in re.findall(r"^(\S+) \((\w+)\)", guide)]
            for one, sha256 in needed:
                if not converted(one, data_home(), sha256).is_file():
                    raise ValueError(f"{one.id} is not here; `fastsample models fetch {one.id}` fetches it")
            self._models[row.model, scale] = open_model(row.model, home=data_home(), classifier_scale=scale)
        model = self._models[row.model, scale]
        mine = model.sha256, model.conditions, model.classifier
        if mine != (row.checkpoint_sha256, *(row.protocol.get(k, "") for k in ("model card", "classifier guidance"))):
            raise ValueError(f"the {row.model} that is here is not the checkpoint of row {row.cell}")
        return model


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
) -> Figure:
    """A figure of a store.

    Args:
        kind: `quality` of solvers against evaluations or seconds; `samples`, images of the same noise; `error`, the
            distance to the reference along the trajectory; `curvature` of the models' trajectories.
        metrics: of `quality`, full names or kinds.
        against: of `quality`, `nfe` or `seconds`.
        models, solvers, where: for `results.tables.select`.
        nfe: only these budgets; by default all, and the middle one for `error`.
        images: sampled again; by default as `IMAGES` says.
        device, checkpoints: for `Replay`.

    Raises:
        ValueError: where nothing is left to show, numbers cannot be compared, or a row cannot be repeated.
    """
    if kind not in ("quality", *IMAGES):
        raise ValueError(f"a picture is of {', '.join(('quality', *IMAGES))}, not {kind!r}")
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
    if kind == "samples":
        return matrix_of(found, replay, count)
    if kind == "error":
        return figures.errors(errors_of(found, replay, count))
    return figures.curvature(curvature_of(found, replay, count))


@torch.inference_mode()
def matrix_of(found: pd.DataFrame, replay: Replay, images: int) -> Figure:
    """The same noise across solvers (rows) and budgets (columns), and in the last column the reference.

    Under each place stands the mean PSNR of the images shown. They are those of the rows, but for adaptive solvers,
    whose steps follow the whole batch.

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

    Stages inside a step count like its ends: a Runge-Kutta method is off the trajectory on purpose there.

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
        them; see `bench.trajectories.curvature` for the definition.
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


def _pixels(x: torch.Tensor) -> np.ndarray:
    return to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
