"""A store as a table of a paper."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fastsample.results.evidence import Comparison
from fastsample.results.forms.ordering import best_first, sorted_by
from fastsample.results.forms.sheet import Sheet
from fastsample.results.layout import sheet_of
from fastsample.results.metrics import metric_of
from fastsample.results.overview import sentences
from fastsample.results.papers.stated import Suite
from fastsample.results.published import beside, published
from fastsample.results.store import Store

__all__ = ["notes_of", "table_of"]


def table_of(
    store: Store,
    *,
    rows: Sequence[str] = ("solver",),
    columns: Sequence[str] = ("nfe",),
    metrics: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
    intervals: bool = True,
    suite: Suite | None = None,
    sort: str = "",
) -> Sheet:
    """A store laid out like a table of a paper; see `results.layout`.

    Args:
        rows, columns: of model, solver, grid, nfe and metric, outermost first.
        metrics: full names or kinds; by default `psnr`, or else the first there is.
        models, solvers, where: for `results.overview.select`.
        intervals: write the 95 % intervals.
        sort: a column as `forms.ordering.sorted_by` takes it, the best first; by default long tables have the best
            first, unless solvers are chosen, whose order then stands.
        suite: put published numbers beside the measured ones; see `results.published.beside`.

    Raises:
        ValueError: where nothing is left to show, or a column would mix what cannot be compared.
    """
    comparison = Comparison(store)
    chosen = comparison.rows(models, solvers, where)
    found = comparison.evidence(chosen, metrics)
    notes = notes_of(chosen, found)
    if suite:
        found, more = beside(found, chosen, published(), suite)
        notes += more
    sheet = sheet_of(found, rows=rows, columns=columns, intervals=intervals, notes=notes)
    known = [(metric_of(name).head(name), metric_of(name).higher) for name in found["metric"].unique()]

    def higher(labels: Sequence[str]) -> bool:
        """Of a column with these heads; where they name no metric, the table is of one."""
        return next((up for head, up in known if any(label.startswith(head) for label in labels)), known[0][1])

    if sort:
        return sorted_by(sheet, sort, higher)
    return sheet if solvers or "solver" not in rows or "metric" in rows else best_first(sheet, higher)


def notes_of(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the metrics of the evidence found in some rows are measured against, and what weights models have."""
    notes = sentences(rows, list(found["metric"].unique()))
    if "protocol.weights" in rows:
        facts = rows[["model", "protocol.weights", "checkpoint_sha256"]].dropna().drop_duplicates()
        notes += [
            f"Weights of {model}: {told}; they have sha256 {sha256[:16]}." for model, told, sha256 in facts.to_numpy()
        ]
    return notes
