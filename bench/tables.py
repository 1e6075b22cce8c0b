"""A store as a table of a paper: the evidence of its samples and what the registry knows of its solvers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pandas as pd

from fastsample.bench.metrics.features import INCEPTION
from fastsample.models.public.cards import cards
from fastsample.results.evidence import Comparison
from fastsample.results.layout import sheet_of
from fastsample.results.published import beside, published
from fastsample.results.sheet import Sheet
from fastsample.results.store import Store
from fastsample.solvers.spec import Spec

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
    reported: bool = False,
) -> Sheet:
    """A store laid out like a table of a paper; see `results.layout`.

    Args:
        rows, columns: of model, solver, grid, nfe and metric, outermost first.
        metrics: full names or kinds; by default `psnr`, or else the first there is.
        models, solvers, where: for `results.overview.select`.
        intervals: write the 95 % intervals.
        reported: put published numbers beside the measured ones.

    Raises:
        ValueError: where nothing is left to show, or a column would mix what cannot be compared.
    """
    comparison = Comparison(store)
    chosen = comparison.rows(models, solvers, where)
    found = comparison.evidence(chosen, metrics)
    notes = notes_of(chosen, found)
    if reported:
        found, more = beside(found, published(), complete)
        lines = zip(found["model"], found["metric"], found["cells"], strict=True)
        other = [_of_other_data(chosen, *line) for line in lines]
        found.loc[other, "difference"] = found.loc[other, "difference"].map(lambda _: ())
        notes += more
        if any(other):
            names = ", ".join(found.loc[other, "model"].unique())
            notes.append(f"No difference is formed for {names}: these rows were measured against images of other data.")
    return sheet_of(found, rows=rows, columns=columns, intervals=intervals, notes=notes)


def _of_other_data(rows: pd.DataFrame, model: str, metric: str, cells: Sequence[str]) -> bool:
    """Whether rows that an older version made compare a public model with another data set than its own."""
    extractor = INCEPTION if metric.startswith("fid") else metric.partition("[")[2].partition("]")[0]
    column = f"protocol.reference[{extractor}]"
    if model not in cards() or column not in rows:
        return False
    told = rows.loc[rows["cell"].isin(cells), column].dropna()
    return any(not text.startswith(f"{cards()[model].data}-train@") for text in told)


@cache
def complete(solver: str) -> str:
    """`name:option=value,...` with every option and its default, by which two of them are the same or not."""
    try:
        spec = Spec.parse(solver)
        return f"{spec.name}:{spec.settings}"
    except ValueError:  # of a solver that is not registered here
        return solver


def notes_of(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What the metrics of the evidence found in some rows are measured against, and what weights models have."""
    notes, names = [], found["metric"].unique()
    if "psnr" in names and {"protocol.psnr reference", "metrics.psnr_reference"} <= {*rows}:
        one_each = rows.dropna(subset=["metrics.psnr", "metrics.psnr_reference"]).drop_duplicates("model")
        titles = one_each["protocol.psnr reference"].str.replace(r" \([0-9a-f]{16}\)$", "", regex=True)
        for title, group in one_each.groupby(titles, sort=False):
            bounds = ", ".join(
                f"{row['metrics.psnr_reference']:.1f} dB ({row['model']})" for _, row in group.iterrows()
            )
            notes.append(
                f"PSNR: mean over samples against {title}, which agrees with itself at half the steps to {bounds}."
            )
    if any(name.startswith("fd[") for name in names):
        notes.append("fd[network]@N: Fréchet distance in the features of that network, from N samples; it is no FID.")
    if "protocol.weights" in rows:
        facts = rows[["model", "protocol.weights", "checkpoint_sha256"]].dropna().drop_duplicates()
        notes += [f"Weights of {model}: {told} (sha256 {sha256[:16]})." for model, told, sha256 in facts.to_numpy()]
    return notes
