"""Metrics of images that another program has made, as a row beside those that are measured here.

Their solver and its evaluations are as somebody states them. The row says so: its solver is called `NAME (stated)`, and
its protocol tells under `stated` which images they were.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite
from fastsample.bench.metrics.features import EMBEDDED
from fastsample.bench.metrics.measure import Batch, Measure, Tools, available
from fastsample.bench.request import RequestError
from fastsample.bench.run import together, versions
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.bench.worker import BATCH
from fastsample.datasets.folders import image_folder
from fastsample.datasets.home import data_home
from fastsample.datasets.image_set import Images
from fastsample.models.catalogue import Model, open_model
from fastsample.models.denoiser import Denoiser
from fastsample.models.held import Held
from fastsample.models.path import LinearFlow
from fastsample.models.public.cards import cards
from fastsample.results.comparable import STATED
from fastsample.results.metrics import DEFAULT, METRICS, parse_metric
from fastsample.results.protocol import Protocol
from fastsample.results.row import VERSION, Row
from fastsample.results.storage.writable import check_folder
from fastsample.results.store import Store
from fastsample.solvers.solver import Plan

__all__ = ["score"]

_OF_IMAGES = ("features", "images")  # what a metric may need


@dataclass(frozen=True)
class _Given:
    """What is stated of images."""

    images: Images
    cell: Cell
    solver: str
    nfe: int
    sha256: str


def score(
    place: Path,
    store: Path,
    *,
    name: str,
    nfe: int,
    model: str = "",
    reference: str = "",
    samples: int | None = None,
    metrics: tuple[str, ...] = (),
    batch_size: int | None = None,
    device: str = "auto",
    weights: dict[str, Path] | None = None,
    console: Console,
) -> Row:
    """Measure images and write their row into a store; one that is there already is returned.

    Args:
        place: a folder or zip file of images, or an npz of `arr_0` uint8 [n, height, width, 3].
        store: folder of the store.
        name, nfe: what made them, and with how many evaluations, as stated.
        model: that they are samples of, for its table, image size and reference set; "" for none.
        reference: the set that they are compared with, as `bench --reference` takes it, if not the model's own.
        samples: how many they must be; None for as many as there are.
        metrics: those that need images or features alone; () for those of `bench` that do.
        batch_size: images of a call of an extractor.
        weights: files of the weights of extractors by name.

    Raises:
        ValueError: for images that cannot be read, or are not those that were stated; for a metric that cannot be had.
    """
    check_folder(store)
    named, metrics = bool(metrics), metrics or tuple(kind for kind in DEFAULT if METRICS[kind].needs in _OF_IMAGES)
    given = _given(place, name, nfe, model, reference, samples, metrics)
    tools = Tools(Sampler(choose_device(device)), weights or {}, console)
    wanted = {text: parse_metric(text, EMBEDDED) for text in metrics}
    for text, asked in wanted.items():
        if asked.metric.needs not in _OF_IMAGES:
            known = ", ".join(kind for kind, metric in METRICS.items() if metric.needs in _OF_IMAGES)
            raise RequestError(f"{text} needs the sampler, not its images alone; there are {known}")
    found, reasons, notes = available([given.cell], wanted, tools)
    without = [f"{' and '.join(of)}: {why}" for (_, why), of in reasons.items()]
    for line in [*notes, *(f"without {one}" for one in without if named)]:
        console.print(f"[yellow]note:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for one in without if not named else ():
        console.print(f"not measured: {escape(one)}", style="dim", highlight=False, soft_wrap=True)
    measures = [one for one in found.values() if not one.why_not(given.cell)[1]]
    if not measures:
        raise RequestError(f"no metric is left: {next(iter(reasons))[1]}")
    facts = {"resize": "none", "distance": "eigvalsh of the symmetric product, float64"}
    facts |= {key: text for one in measures for key, text in one.protocol(given.cell).items()}
    facts[STATED] = f"{len(given.images)} images of {place.resolve().name}, sha256 {given.sha256}"
    identity = [*sorted(facts.items()), given.cell.model.id, name, nfe, sorted(metrics)]
    cell = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    kept = Store(store)
    if row := kept.finished(cell):
        return row
    _only_these(kept, given)
    begin, size = time.perf_counter(), batch_size or BATCH
    arrays = _measured(given, measures, tools, size)
    summary = together([one.estimate(given.cell, arrays) for one in measures])
    for key, number in summary.values.items():
        finite(f"{key} is", np.array(number))
    spent = time.perf_counter() - begin
    row = Row(
        cell=cell, version=VERSION, model=given.cell.model.id, checkpoint_sha256=given.cell.model.sha256,
        solver=given.solver, title=given.solver, options={}, sampler=given.solver, grid="-", own_grid="-", times=[],
        nfe_asked=nfe, nfe=nfe, forwards=nfe, samples=len(given.images), seed=0, device=tools.sampler.device_name,
        metrics=summary.values,
        standard_errors={key: estimate.standard_error for key, estimate in summary.estimates.items()},
        seconds={"network": 0.0, "solver": 0.0, "metrics": spent, "total": spent},
        protocol=facts | {"batch": f"{size} samples"}, versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"), **given.cell.protocol.model_dump(),
    )  # fmt: skip
    influences = {f"influence[{key}]": estimate.parts[0] for key, estimate in summary.estimates.items()}
    kept.finish(row, {key: array for key, array in arrays.items() if array.ndim == 1} | influences | summary.arrays)
    kept.summarise()
    return row


def _only_these(store: Store, given: _Given) -> None:
    """Raise RequestError where the store has as many other images under the same name."""
    key = given.cell.model.id, given.solver, given.nfe, len(given.images)
    for row in store.rows():
        told = row.protocol.get(STATED, "")
        if key == (row.model, row.solver, row.nfe_asked, row.samples) and given.sha256 not in told:
            where = f"{store.folder} holds other images of {given.solver} at NFE {given.nfe}"
            raise RequestError(f"{where} ({told}): give these another --name")


def _measured(given: _Given, measures: Sequence[Measure], tools: Tools, size: int) -> dict[str, np.ndarray]:
    """What the measures say of each image."""
    arrays: dict[str, list[np.ndarray]] = {}
    for first, levels in _batches(given.images, size):
        batch = Batch(given.cell, range(first, first + len(levels)), tools)
        batch.levels = levels
        for name, value in {name: value for one in measures for name, value in one.per_sample(batch).items()}.items():
            arrays.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def _given(
    place: Path, name: str, nfe: int, model: str, reference: str, samples: int | None, metrics: tuple[str, ...]
) -> _Given:
    """The images, read once for their size, their number and their hash, and the cell that they stand for."""
    if not re.fullmatch(r"[\w.+-][\w.+ -]*", name):
        raise RequestError(f"--name is letters, digits, blanks and any of . + - _, not {name[:60]!r}")
    if not model and not reference:
        raise RequestError("say what the images are compared with: --model, --reference or both")
    images = image_folder(f"folder:{place}", "stated")
    if samples is not None and len(images) != samples:
        raise RequestError(f"{place} holds {len(images):,} images, and {samples:,} are stated")
    if len(images) < 2:
        raise RequestError(f"{place} holds {len(images)} image; there must be two at least")
    digest, shape = hashlib.sha256(), (0, 0, 0)
    for _, levels in _batches(images, 500):
        shape = cast(tuple[int, int, int], tuple(levels.shape[1:]))
        digest.update(levels.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    one = _model(model, reference, shape)
    if one.image_shape[1:] != shape[1:]:
        size, wanted = ("x".join(map(str, reversed(some[1:]))) or "no images" for some in (shape, one.image_shape))
        raise RequestError(f"the images of {place} are {size}, and samples of {one.id} are {wanted}")
    # Nothing that measures images alone asks for a plan.
    cell = Cell(one, cast(Plan, None), {}, Protocol(reference=reference), len(images), 0, metrics)
    return _Given(images, cell, f"{name} (stated)", nfe, digest.hexdigest())


def _model(name: str, reference: str, shape: tuple[int, ...]) -> Model:
    """What images are samples of, as far as they are measured; a public model is not fetched for it."""
    if name and name not in cards():
        return open_model(name, home=data_home())
    card = cards().get(name)

    def make(*_: object) -> Denoiser:
        raise ValueError("images alone have no denoiser")

    facts = (card.title, card.image_shape, card.data, card.reference or "none") if card else ("", shape, "", "none")
    title, image_shape, data, own = facts
    return Model(
        name or reference, title, "", LinearFlow(), image_shape, image_shape, data, 0, Held(None), make, reference=own
    )


def _batches(images: Images, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(number of the first, uint8 [n, 3, height, width]) of the images in order."""
    first = 0
    for levels in images.batches(size):
        yield first, levels
        first += len(levels)
