"""Rows of a store sampled again, from the same noise, by what they say of their samplers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.measure import Batch, Tools
from fastsample.bench.metrics.solution import solution_at
from fastsample.bench.protocol import under
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.datasets.home import data_home
from fastsample.datasets.own.code import is_code
from fastsample.models.catalogue import Model, open_model, shipped_path
from fastsample.models.public.cards import Card, cards
from fastsample.models.public.manifest import existing
from fastsample.results.commands import GIVEN
from fastsample.results.comparable import STATED
from fastsample.results.row import Row
from fastsample.results.store import Store
from fastsample.solvers.grids import FOUND, Grid
from fastsample.solvers.spec import Spec
from fastsample.solvers.table_file import TableFile

__all__ = ["Replay"]


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
        self.store, self.sampler = store, Sampler(choose_device(device))
        self.tools = Tools(self.sampler)
        opened = (open_model(file, home=data_home()) for file in checkpoints or ())
        self._models = {(model.id, 0.0): model for model in opened}  # by name and scale of classifier guidance
        self._under: dict[tuple[object, ...], Model] = {}  # the same under the protocols of rows

    def cell(self, cell: str) -> Cell:
        """The cell of a finished row, to be sampled.

        Raises:
            ValueError: if it cannot be repeated here: its model is not here or another one by now, its solver or grid
                gives other times, or the device does not compute in its precision. Nothing is downloaded, and no word
                of the row is taken for a file but that of its prompts, which is read as text and must have the row's
                hash.
        """
        row = self.store.row(cell)
        if STATED in row.protocol:
            raise ValueError(f"{row.title} is images from elsewhere, which no sampler here draws again")
        check_precision(row.precision, self.sampler.device)
        model = self._model(row)
        table: TableFile | None
        if row.learned:
            plan, table = Spec(row.solver, row.options).plan_for(model, row.nfe_asked, row.guidance)
        else:
            # The times of a file, or of a grid that was found, are in the row; the file itself is not looked for.
            timed = row.grid.startswith("file:") or row.grid in (*FOUND, "learned")
            grid = Grid(row.grid, times=tuple(row.times)) if timed else Grid.parse(row.grid)
            try:
                plan, table = Spec(row.solver, row.options, grid).plan_for(model, row.nfe_asked, row.guidance)
            except TypeError as error:
                raise ValueError(f"row {row.cell} has options that {row.solver} cannot have: {error}") from None
        if plan.statistics != row.statistics:
            raise ValueError(f"the statistics or the predictor of {row.model} are others by now than in row {row.cell}")
        same = len(plan.times) == len(row.times) and np.allclose(plan.times, row.times)
        if not same or (table and table.sha256 != row.protocol["table"]):
            raise ValueError(f"{row.title} at NFE {row.nfe_asked} is another one by now than in row {row.cell}")
        return Cell(model, plan, row.options, row.asked, row.samples, row.seed, (), table)

    def measured(self, found: pd.DataFrame) -> pd.DataFrame:
        """The evidence without images from elsewhere, which no sampler here draws again."""
        return found[~found["stated"]]

    def split(self, found: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """The evidence on models that are here, and for each of the others why it is left out."""
        kept, reasons = [], []
        for _, group in self.measured(found).groupby("model", sort=False):
            try:
                self._model(self.store.row(group["cells"].iloc[0][0]))
                kept.append(group)
            except ValueError as error:
                reasons.append(str(error))
        return pd.concat(kept) if kept else found[:0], reasons

    def run(self, cell: Cell, indices: list[int]) -> Batch:
        """The cell's samples, with a record of where its solver asked the model."""
        batch = Batch(cell, indices, self.tools)
        batch.sample(recorded=True)
        return batch

    def reference(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """The reference solutions that the cell's samples are measured against, as images.

        They are solved for these samples alone; those of `Batch.solution` are, with others, in the cache or go there.
        """
        path, (_, z) = cell.plan.path, self.tools.trajectory(cell, indices)
        x = (path.alpha(path.t_data) + path.sigma(path.t_data)) * z[-1]
        denoised = self.tools.solved(cell, indices)[0].x0(x, path.t_data)
        return self.sampler.images(cell, solution_at(cell.plan.end, path, x, denoised))

    def _model(self, row: Row) -> Model:
        own = self._opened(row.model, row.classifier_scale, row.protocol.get(GIVEN, row.model))
        key = row.model, row.classifier_scale, row.prompts, *row.altered.items()
        if key not in self._under:
            self._under[key] = under(own, row, self._opened(row.guide) if row.guide else None)
        model = self._under[key]
        mine = model.sha256, model.conditions, model.classifier
        if mine != (row.checkpoint_sha256, *(row.protocol.get(k, "") for k in ("model card", "classifier guidance"))):
            what = "checkpoint, or has not the prompts," if model.prompts else "checkpoint"
            raise ValueError(f"the {row.model} that is here is not the {what} of row {row.cell}")
        if model.guide != row.protocol.get("guide", ""):
            raise ValueError(f"the {row.guide} that is here is not the guide of row {row.cell}")
        return model

    def _opened(self, model: str, scale: float = 0.0, given: str = "") -> Model:
        if (model, scale) not in self._models:
            if shipped_path(model) is None:
                given = given or model
                if ":" in given and is_code(given):
                    hint = f"add --checkpoint {shlex.quote(given)}"
                    raise ValueError(f"{model} is code of yours, which is not run unasked: {hint}")
                raise ValueError(f"{model} is no model of the package; --checkpoint FILE names it for this command")
            name, _, digits = model.partition("@")
            for card in _needed(name, scale):
                if not (digits and card.id == name) and not existing(card, data_home()):
                    raise ValueError(f"{card.id} is not here; `fastsample models fetch {card.id}` fetches it")
            self._models[model, scale] = open_model(model, home=data_home(), classifier_scale=scale)
        return self._models[model, scale]


def _needed(model: str, classifier_scale: float) -> list[Card]:
    """The cards of what has to be here for a model: itself, its first stage, and the classifier that guides it."""
    if (card := cards().get(model)) is None:
        return []
    names = [card.first_stage, card.classifier if classifier_scale else None]
    return [card, *(cards()[name] for name in names if isinstance(name, str) and name)]
