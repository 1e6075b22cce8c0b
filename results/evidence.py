"""Evidence about the rows of one store: intervals of their numbers and of the differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fastsample.results.comparable import what_decides
from fastsample.results.layout import evidence, metrics_named
from fastsample.results.metrics import metric_of
from fastsample.results.overview import select
from fastsample.results.statistics import FEWEST, Estimate, Interval, difference, mean_of, pool
from fastsample.results.store import Store

__all__ = ["Comparison"]


class Comparison:
    """Intervals from the per-sample data of a store; of each cell what a metric needs is read, once.

    A cell is named by the `cell` of its row, or where other rows repeat it with other seeds by a sequence of them.
    Its number is then the mean over seeds, and its error that within the seeds or between them, if that is larger.
    """

    def __init__(self, store: Store) -> None:
        self.store, self._frame = store, store.frame()
        self._rows: dict[str, dict[Any, Any]] = {row["cell"]: row for row in self._frame.to_dict("records")}
        self._known: dict[tuple[str, str], Estimate | None] = {}

    def rows(
        self,
        models: Sequence[str] | None = None,
        solvers: Sequence[str] | None = None,
        where: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """The rows that are meant; see `results.overview.select`.

        Raises:
            ValueError: if there are none.
        """
        if self._frame.empty:
            raise ValueError(f"{self.store.folder} holds no finished cell")
        return select(self._frame, models, solvers, where)

    def evidence(self, rows: pd.DataFrame, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """`results.layout.evidence` of rows, for the metrics that `results.layout.metrics_named` finds."""
        return evidence(rows, metrics_named(rows, metrics), interval=self.interval, difference=self.difference)

    def interval(self, cell: str | Sequence[str], metric: str, *, level: float = 0.95) -> Interval | None:
        """The metric, by its full stored name, with its interval; None if the store has no per-sample data for it."""
        found = self.by_seed(cell, metric)
        return pool(list(found.values())).interval(level) if found else None

    def difference(
        self, first: str | Sequence[str], second: str | Sequence[str], metric: str, *, level: float = 0.95
    ) -> Interval | None:
        """First minus second, paired where the seeds are the same; None where the two are not comparable."""
        rows = [self._rows[cell] for cell in (*_listed(first), *_listed(second))]
        facts = [{"model": row["model"]} | what_decides(row, metric) for row in rows]
        one, two = self.by_seed(first, metric), self.by_seed(second, metric)
        if not one or not two or any(fact != facts[0] for fact in facts):
            return None
        return difference(one, two).interval(level)

    def by_seed(self, cell: str | Sequence[str], metric: str) -> dict[int, Estimate]:
        """The metric of each seed with the effect of each sample on it; empty where one has no per-sample data."""
        found = {int(self._rows[one]["seed"]): self._estimate(one, metric) for one in _listed(cell)}
        known = {seed: estimate for seed, estimate in found.items() if estimate}
        return known if len(known) == len(found) else {}

    def _estimate(self, cell: str, metric: str) -> Estimate | None:
        key = cell, metric
        if key not in self._known:
            row = self._rows[cell]
            there = not np.isnan(row.get(f"metrics.{metric}", np.nan))
            found = _estimate(row, metric, self.store.per_sample(cell, _arrays_of(metric))) if there else None
            self._known[key] = found if found and found.samples >= FEWEST else None
        return self._known[key]


def _listed(cells: str | Sequence[str]) -> Sequence[str]:
    return [cells] if isinstance(cells, str) else cells


def _arrays_of(metric: str) -> tuple[str, ...]:
    """What says how sure a metric is, the first that is there: values, named with their number or without it."""
    values = (metric, metric.partition("@")[0]) if metric_of(metric).mean else ()
    return (*values, f"influence[{metric}]")


def _estimate(row: Mapping[Any, Any], metric: str, arrays: Mapping[str, np.ndarray]) -> Estimate | None:
    """From the arrays of a row; None where they hold nothing of the metric, as for distances in rows of 0.1.0."""
    *values, influence = _arrays_of(metric)
    for name in values:
        if name in arrays:
            return mean_of(arrays[name])
    return Estimate(row[f"metrics.{metric}"], (arrays[influence],)) if influence in arrays else None
