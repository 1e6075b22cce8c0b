"""The transfer matrix: learned tables, trained on a model at a number of evaluations, run on others at others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from fastsample.results.evidence import Comparison
from fastsample.results.forms.sheet import Entry, Footnotes, Sheet
from fastsample.results.layout import metrics_named
from fastsample.results.metrics import metric_of
from fastsample.results.store import Store
from fastsample.results.training import trained_on

__all__ = ["Matrix", "matrices", "sheet_of"]

Place = tuple[str, int]  # model, NFE
Why = Callable[[str, Place, Place], str]  # (kind, trained, run): why it was not run


@dataclass(frozen=True)
class Matrix:
    """What tables of one kind reach where they were not learned.

    Attributes:
        kind: of learned solvers, with its title; metric: full name.
        sources, places: of training, down, and of use, across.
        numbers: [3, sources, places], values and the ends of their 95 % intervals; NaN where there is none.
        reasons: why a place is empty, by (trained, run).
        best: of each column the training-free solver that values are differences from; {} for values themselves.
        trained: what each row was trained on, and with what, by the place of training.
        samples: that each number is from.
    """

    kind: str
    title: str
    metric: str
    sources: list[Place]
    places: list[Place]
    numbers: np.ndarray
    reasons: dict[tuple[Place, Place], str]
    best: dict[Place, str]
    trained: dict[Place, str]
    samples: int

    @property
    def name(self) -> str:
        """What its numbers are."""
        called = metric_of(self.metric).head(self.metric)
        return f"{called}, less the best training-free solver of the column" if self.best else called


def matrices(
    store: Store,
    metric: str | None = None,
    *,
    difference: bool = False,
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    nfe: Sequence[int] | None = None,
    where: Sequence[str] | None = None,
    why: Why = lambda kind, trained, run: "not measured",
) -> list[Matrix]:
    """A matrix for each kind of learned solvers of a store.

    A row of the store says whose table it ran in its options `transfer` and `trained_nfe`, where these are not its own.

    Args:
        metric: full name or kind; by default `psnr`, or else the first there is.
        difference: from the best training-free solver of the same model and NFE, paired; a column without one is empty.
        models, solvers, where: for `results.overview.select`; models and nfe are those of use.
        why: says why a table was not run somewhere.

    Raises:
        ValueError: where no row is of a learned table, or the numbers cannot be compared.
    """
    comparison = Comparison(store)
    rows = comparison.rows(models, solvers, where)
    rows = rows[rows["nfe_asked"].isin(nfe)] if nfe else rows
    (name, *_) = metrics_named(rows, [metric] if metric else None)
    found = comparison.evidence(rows, [name])
    learned = {row.cell: row for row in store.rows() if row.learned}
    of_tables = (found["trained_on"] != "nothing") & found["cells"].map(lambda cells: cells[0] in learned)
    if not of_tables.any():
        raise ValueError(f"{store.folder} has no row of a learned table with {name}")
    best = _best(found[~of_tables], name) if difference else {}
    kinds: dict[str, dict[tuple[Place, Place], dict[Any, Any]]] = {}
    for line in found[of_tables].to_dict("records"):
        row = learned[line["cells"][0]]
        options: dict[str, Any] = row.options
        source = str(options.get("transfer", row.model)), int(options.get("trained_nfe", row.nfe_asked))
        kinds.setdefault(row.solver, {})[source, (row.model, row.nfe_asked)] = line | {"row": row}
    made = []
    for kind, lines in kinds.items():
        first = next(iter(lines.values()))
        sources, places = (sorted({ends[side] for ends in lines}) for side in (0, 1))
        numbers, empty = np.full((3, len(sources), len(places)), np.nan), dict[tuple[Place, Place], str]()
        for (i, source), (j, place) in product(enumerate(sources), enumerate(places)):
            if (source, place) not in lines:
                empty[source, place] = why(kind, source, place)
                continue
            line = lines[source, place]
            if not difference:
                numbers[:, i, j] = line["value"], line["low"], line["high"]
            elif place in best and (far := comparison.difference(line["cells"], best[place]["cells"], name)):
                numbers[:, i, j] = far.value, far.low, far.high
            else:
                empty[source, place] = "no training-free solver to compare with, sample by sample"
        told = {source: line["row"].protocol for (source, _), line in lines.items()}
        trained = {source: _training(facts) for source, facts in told.items()}
        against = {place: f"{one['title']}, {one['grid']}" for place, one in best.items() if place in places}
        title, samples = first["row"].title, int(first["samples"])
        made.append(Matrix(kind, title, name, sources, places, numbers, empty, against, trained, samples))
    return made


def _best(found: pd.DataFrame, metric: str) -> dict[Place, dict[Any, Any]]:
    """The line of the best training-free solver within its budget, for each model and NFE."""
    free = found[(found["trained_on"] == "nothing") & ~found["stated"] & (found["made"] <= found["nfe"])]
    order = free.sort_values("value", ascending=not metric_of(metric).higher, kind="stable")
    return {(line["model"], line["nfe"]): line for line in order.to_dict("records")[::-1]}


def _training(facts: Mapping[str, str]) -> str:
    said = trained_on({f"protocol.{key}": text for key, text in facts.items()})
    return f"{said}: {facts['found with']}" if "found with" in facts else said


def sheet_of(one: Matrix) -> Sheet:
    """A matrix as a table: places of training down, of use across, and why a place is empty in a footnote."""
    letters, digits = Footnotes(), metric_of(one.metric).digits
    body: list[list[Entry]] = []
    facts: list[dict[str, object]] = []
    for i, source in enumerate(one.sources):
        body.append([])
        for j, place in enumerate(one.places):
            value, low, high = map(float, one.numbers[:, i, j])
            why = one.reasons.get((source, place), "")
            spread = "" if math.isnan(low) else f"{max(value - low, high - value):.{digits}f}"
            entry = Entry(f"{value:{'+' if one.best else ''}.{digits}f}", spread)
            body[-1].append(letters.on(Entry("-"), [why]) if why else entry)
            facts.append({
                "kind": one.kind, "trained_model": source[0], "trained_nfe": source[1], "model": place[0],
                "nfe": place[1], "metric": one.metric, "value": value, "low": low, "high": high,
                "less": one.best.get(place, ""), "samples": one.samples, "trained_on": one.trained[source],
                "empty": why,
            })  # fmt: skip
    names = [
        (Entry(model), letters.on(Entry(str(nfe)), [f"trained on {one.trained[model, nfe]}"]))
        for model, nfe in one.sources
    ]
    heads = []
    for place in one.places:
        less = [f"less {one.best[place]}"] if place in one.best else []
        heads.append((Entry(f"on {place[0]}"), letters.on(Entry(f"NFE {place[1]}"), less)))
    frame = pd.DataFrame(
        body, dtype=object, index=pd.MultiIndex.from_tuples(names, names=["trained on", "at NFE"]),
        columns=pd.MultiIndex.from_tuples(heads, names=["", ""]),
    )  # fmt: skip
    return Sheet(frame, pd.DataFrame(facts), f"{one.title}: {one.name}, {one.samples} samples", tuple(letters.texts))
