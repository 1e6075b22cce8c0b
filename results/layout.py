"""Tables like those of papers: solvers down, evaluations across, the best set off only where the data say so.

`evidence` turns rows of a store into one line per number, with its interval, its rank among what competes with it
(same model, metric and budget) and remarks; `sheet_of` lays these lines out. Whatever may not stand in one column is
refused with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fastsample.results.comparable import CELL, incomparable, stated
from fastsample.results.forms.sheet import Entry, Footnotes, Sheet
from fastsample.results.metrics import MAIN, metric_of
from fastsample.results.statistics import Interval
from fastsample.results.training import trained_on, training_remarks

__all__ = ["DIMENSIONS", "Difference", "Measured", "evidence", "metrics_named", "sheet_of"]

DIMENSIONS = ("model", "solver", "grid", "nfe", "metric")

Measured = Callable[[Sequence[str], str], Interval | None]  # (cells that differ in their seed, metric)
Difference = Callable[[Sequence[str], Sequence[str], str], Interval | None]  # first minus second

_Key = tuple[Any, ...]

_NAMES = {"nfe": "NFE", "model": "Model", "solver": "Solver", "grid": "Grid", "metric": "Metric"}
_NUMBERS = ("measured", "published", "difference")


def metrics_named(rows: pd.DataFrame, names: Sequence[str] | None) -> list[str]:
    """Full names of the metrics that are asked for by full name or kind; by default `MAIN`, or else the first.

    Args:
        rows: of `results.row.frame_of`.
        names: such as `psnr`, `fd` (that of every extractor and number of samples) or `fd[cifar10-resnet]@1000`.

    Raises:
        ValueError: for a name that no row has; the message lists those there are.
    """
    known = [str(name)[8:] for name in rows.dropna(axis=1, how="all") if str(name).startswith("metrics.")]
    main = [name for name in known if name not in metric_of(name).summaries]
    found: list[str] = []
    for name in names or ([MAIN] if any(metric_of(full).kind == MAIN for full in main) else main[:1]):
        matches = [name] if name in known else [full for full in main if metric_of(full).kind == name]
        if not matches:
            raise ValueError(f"no row has the metric {name!r}; there are {', '.join(main) or 'none'}")
        found += [full for full in matches if full not in found]
    return found


def evidence(
    rows: pd.DataFrame, metrics: Sequence[str], *, interval: Measured, difference: Difference,
) -> pd.DataFrame:  # fmt: skip
    """One line per model, solver with its options, grid, budget and metric; repeated seeds are averaged.

    Columns: model, solver, title, grid, nfe (asked), made, metric, samples, seeds, guidance, value, low, high (95 %
    interval, NaN where the store has no per-sample data), rank, cells, trained_on, training (remarks on it), remarks
    (all), stated (of images from elsewhere). The rank is `best` where every paired difference from the others excludes
    zero, `tied` for all that cannot be told from the leader, `second` for what comes next where there is a best.
    Without intervals the values alone decide. A solver that exceeds its budget, as adaptive ones may, has no rank.

    Args:
        rows: of `results.row.frame_of`.
        metrics: full names, each of which a row has.
        interval, difference: evidence from per-sample data, as `results.evidence.Comparison` gives it.

    Raises:
        ValueError: where a column would mix what cannot be compared; the message says what.
    """
    lines: list[dict[str, Any]] = []
    records = rows.to_dict("records")  # a frame is slow to take rows from
    for metric in metrics:
        if reason := incomparable(rows, metric):
            raise ValueError(f"these rows do not belong in one table: {reason}; choose with --where FIELD=VALUE")
        groups: dict[_Key, dict[int, dict[Any, Any]]] = {}
        for row in records:
            if not math.isnan(row[f"metrics.{metric}"]):
                groups.setdefault(tuple(row[name] for name in CELL), {})[row["seed"]] = row
        for by_seed in groups.values():
            group = [by_seed[seed] for seed in sorted(by_seed)]
            row, cells = group[0], tuple(one["cell"] for one in group)
            known = interval(cells, metric)
            lines.append({
                "model": row["model"], "solver": row["solver"] + (f":{row['options']}" if row["options"] else ""),
                "title": row["title"] + (f" ({row['options']})" if row["options"] else ""), "grid": row["grid"],
                "nfe": int(row["nfe_asked"]), "made": int(row["nfe"]), "metric": metric, "samples": int(row["samples"]),
                "seeds": ", ".join(str(one["seed"]) for one in group), "guidance": float(row["guidance"]),
                "value": float(np.mean([one[f"metrics.{metric}"] for one in group])),
                "low": known.low if known else math.nan, "high": known.high if known else math.nan, "rank": "",
                "cells": cells, "trained_on": trained_on(row), "training": training_remarks(row, metric),
                "remarks": _remarks(row) + training_remarks(row, metric),
                "stated": bool(stated(row)),
            })  # fmt: skip
    ranks: dict[int, str] = {}
    rivals: dict[_Key, list[int]] = {}
    for number, line in enumerate(lines):
        if line["made"] <= line["nfe"]:
            rivals.setdefault((line["model"], line["metric"], line["nfe"]), []).append(number)
    for numbers in rivals.values():
        ranks |= _ranks({number: lines[number] for number in numbers}, difference)
    return pd.DataFrame([line | {"rank": ranks.get(number, "")} for number, line in enumerate(lines)])


def _remarks(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """What a reader has to know of a cell: another grid than the solver's own, another number of evaluations."""
    found, spare, own_grid = [], int(row["nfe_asked"] - row["nfe"]), row["own_grid"]
    if told := stated(row):
        found.append(f"stated, not measured, but for the metrics: {told[: told.find(', sha256') + 25]}")
    if row["grid"] != own_grid:
        found.append(f"grid {row['grid']}" + (f", not the solver's own ({own_grid})" if own_grid else ""))
    if spare:
        plural = "s" if abs(spare) > 1 else ""
        found.append(
            f"{abs(spare)} evaluation{plural} {'fewer than asked' if spare > 0 else 'more than asked: no rank'}"
        )
    return tuple(found)


def _ranks(rivals: Mapping[int, Mapping[str, Any]], difference: Difference) -> dict[int, str]:
    """Ranks of lines of evidence that compete, by their number; a single one has none."""
    if len(rivals) < 2:
        return {}
    metric = next(iter(rivals.values()))["metric"]
    order = sorted(rivals, key=lambda number: rivals[number]["value"], reverse=metric_of(metric).higher)

    def level(leader: int, others: list[int]) -> list[int]:
        found = []
        for other in others:
            known = difference(rivals[leader]["cells"], rivals[other]["cells"], metric)
            if not known.excludes_zero if known else rivals[leader]["value"] == rivals[other]["value"]:
                found.append(other)
        return found

    if tied := level(order[0], order[1:]):
        return dict.fromkeys([order[0], *tied], "tied")
    return {order[0]: "best"} | dict.fromkeys([order[1], *level(order[1], order[2:])], "second")


def sheet_of(
    found: pd.DataFrame, *, rows: Sequence[str] = ("solver",), columns: Sequence[str] = ("nfe",),
    intervals: bool = True, notes: Sequence[str] = (),
) -> Sheet:  # fmt: skip
    """Lay evidence out as a table.

    A dimension that is named nowhere goes where papers have it if it varies (models to the left of the rows, metrics
    above the columns, grids beside solvers that have several), and into the caption if it does not.

    Args:
        found: of `evidence`, with or without what `results.published.beside` adds.
        rows, columns: of `DIMENSIONS`, outermost first.
        intervals: write the half-width of the 95 % interval (its wider side) behind each value.
        notes: more sentences for the foot of the table.

    Raises:
        ValueError: for a dimension that is unknown, named twice, or varies and is named nowhere.
    """
    down, across = _axes(found, rows, columns)
    cells: dict[tuple[_Key, _Key], tuple[Entry, tuple[str, ...]]] = {}
    for line in found.to_dict("records"):
        for number, entry, remarks in _entries(line, intervals):
            place = tuple(line[name] for name in down), (*(line[name] for name in across), number)
            cells[place] = entry, remarks
    sides = sorted({side for side, _ in cells}, key=_order(found, down))
    tops = sorted({top for _, top in cells}, key=_order(found, across))
    several = len({number for *_, number in tops}) > 1
    # What is remarked on all of a row or a column stands at its name.
    measured = [top for top in tops if top[-1] == "measured"]
    of_side = {side: _common([cells[side, top][1] for top in measured if (side, top) in cells]) for side in sides}
    of_top = {top: _common([cells[side, top][1] for side in sides if (side, top) in cells]) for top in tops}
    letters = Footnotes()

    def named(labels: list[Entry], remarks: tuple[str, ...]) -> tuple[Entry, ...]:
        return (*labels[:-1], letters.on(labels[-1], remarks))

    heads = [named(_heads(found, across, top, several), of_top[top]) for top in tops]
    names, body = [], []
    for side in sides:
        names.append(named([_label(found, *pair) for pair in zip(down, side, strict=True)], of_side[side]))
        line_of_entries = []
        for top in tops:
            entry, remarks = cells.get((side, top), (Entry("-"), ()))
            said = {*of_side[side], *of_top[top]}
            line_of_entries.append(letters.on(entry, [text for text in remarks if text not in said]))
        body.append(line_of_entries)
    across_names = ["NFE" if name == "nfe" else "" for name in across] + ([""] if several else [])
    frame = pd.DataFrame(
        body, dtype=object, index=pd.MultiIndex.from_tuples(names, names=[_NAMES[name] for name in down]),
        columns=pd.MultiIndex.from_tuples(heads, names=across_names),
    )  # fmt: skip
    foot = (*letters.texts, *(("", text) for text in (*_explanations(found, intervals), *notes)))
    return Sheet(frame, _flat(found), _caption(found, {*down, *across}), foot)


def _axes(found: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The dimensions of the rows and of the columns, completed, without those that are the same everywhere."""
    for name in (*rows, *columns):
        if name not in DIMENSIONS:
            raise ValueError(f"rows and columns are of {', '.join(DIMENSIONS)}, not {name!r}")
        if (*rows, *columns).count(name) > 1:
            raise ValueError(f"{name!r} can be only once in the rows or the columns")
    varying = [name for name in DIMENSIONS if found[name].nunique() > 1]
    down, across = list(rows), list(columns)
    if "model" in varying and "model" not in (*down, *across):
        down.insert(0, "model")
    if "metric" in varying and "metric" not in (*down, *across):
        across.insert(0, "metric")
    if "grid" not in (*down, *across) and found.duplicated([*down, *across]).any():
        down.append("grid")
    if found.duplicated([*down, *across]).any():
        left = [name for name in varying if name not in (*down, *across)]
        raise ValueError(f"{' and '.join(left)} would share one place of the table: name it in --rows or --columns")
    return [n for n in down if n in varying] or down[-1:], [n for n in across if n in varying] or across[-1:]


def _order(found: pd.DataFrame, axis: Sequence[str]) -> Callable[[_Key], _Key]:
    """Sort key of rows or columns: evaluations rising, the rest as first seen, each measured number first."""
    places = [{value: place for place, value in enumerate(found[name].unique())} for name in axis]
    places = [{v: v for v in seen} if name == "nfe" else seen for name, seen in zip(axis, places, strict=True)]
    numbers = {number: place for place, number in enumerate(_NUMBERS)}
    return lambda key: tuple(place[value] for place, value in zip([*places, numbers], key, strict=False))


def _entries(line: Mapping[Any, Any], intervals: bool) -> Iterator[tuple[str, Entry, tuple[str, ...]]]:
    """What a line of evidence puts into the table: the measured number, the published ones, and the difference."""

    def number(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.{metric_of(line['metric']).digits}f}"

    known = intervals and not math.isnan(line["low"])
    spread = number(max(line["value"] - line["low"], line["high"] - line["value"])) if known else ""
    yield "measured", Entry(number(line["value"]), spread, line["rank"], row=line["cells"][0]), line["remarks"]
    if line.get("published"):
        yield "published", Entry(" / ".join(map(number, line["published"]))), line["sources"]
        yield "difference", Entry(" / ".join(map(number, line["difference"])) or "-"), ()


def _common(remarks: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What is remarked on each of several entries."""
    return tuple(text for text in remarks[0] if all(text in others for others in remarks)) if len(remarks) > 1 else ()


def _heads(found: pd.DataFrame, across: Sequence[str], top: _Key, several: bool) -> list[Entry]:
    heads = [_label(found, name, value) for name, value in zip(across, top[:-1], strict=True)]
    heads += [Entry(top[-1])] if several else []
    # The lowest line of the heads is named at the left of it, the others say what they are.
    return [
        replace(head, text=f"NFE {head.text}") if name == "nfe" and head is not heads[-1] else head
        for name, head in zip((*across, ""), heads, strict=False)
    ]


def _label(found: pd.DataFrame, name: str, value: Any) -> Entry:
    if name == "metric":
        metric = metric_of(value)
        return Entry(f"{metric.head(value)} {'↑' if metric.higher else '↓'}")
    return Entry(found.loc[found["solver"] == value, "title"].iloc[0] if name == "solver" else str(value))


def _caption(found: pd.DataFrame, shown: set[str]) -> str:
    """What is the same in the whole table."""
    first = found.iloc[0]
    said = [_label(found, name, first[name]).text for name in ("metric", "model", "solver") if name not in shown]
    said += [] if "nfe" in shown else [f"NFE {first['nfe']}"]
    said += [f"{first['samples']:,} samples"] if found["samples"].nunique() == 1 else []
    if found["seeds"].nunique() == 1:
        said.append(f"mean over seeds {first['seeds']}" if "," in first["seeds"] else f"seed {first['seeds']}")
    return ", ".join(said)


def _explanations(found: pd.DataFrame, intervals: bool) -> Iterator[str]:
    """What the signs of the table mean."""
    ranks, sure = set(found["rank"]), found["low"].notna()
    if "best" in ranks and sure.any():
        yield (
            "Bold: the best, whose paired 95 % interval from every other excludes zero; underlined: the second, or all "
            "that are level with it."
        )
    if "tied" in ranks:
        yield "=: the best, and all that are level with it: the paired 95 % interval of their difference holds zero."
    if not sure.all():
        bare = ", ".join(found.loc[~sure, "metric"].unique())
        yield f"{bare}: no intervals, for want of per-sample data, and ranked by value alone."
    if intervals and sure.any():
        yield "±: half-width of the 95 % interval."


def _flat(found: pd.DataFrame) -> pd.DataFrame:
    """Evidence with lists as text."""
    lists = [name for name in found if isinstance(found[name].iloc[0], tuple)]
    return found.assign(**{str(name): found[name].map(lambda values: "; ".join(map(str, values))) for name in lists})
