"""A store as a table of a paper."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fastsample.results.evidence import Comparison
from fastsample.results.forms.sheet import Sheet
from fastsample.results.layout import sheet_of
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
) -> Sheet:
    """A store laid out like a table of a paper; see `results.layout`.

    Args:
        rows, columns: of model, solver, grid, nfe and metric, outermost first.
        metrics: full names or kinds; by default `psnr`, or else the first there is.
        models, solvers, where: for `results.overview.select`.
        intervals: write the 95 % intervals.
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
    return sheet_of(found, rows=rows, columns=columns, intervals=intervals, notes=notes)


def notes_of(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the metrics of the evidence found in some rows are measured against, and what weights models have."""
    notes = sentences(rows, list(found["metric"].unique()))
    if "protocol.weights" in rows:
        facts = rows[["model", "protocol.weights", "checkpoint_sha256"]].dropna().drop_duplicates()
        notes += [f"Weights of {model}: {told} (sha256 {sha256[:16]})." for model, told, sha256 in facts.to_numpy()]
    return notes
