"""Frames for people: what a store holds, row by row, and in which fields two rows differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from rich.console import Group

from fastsample.datasets.names import nearest
from fastsample.results.comparable import CELL, cell_text, shortened
from fastsample.results.forms.ordering import sorted_frame
from fastsample.results.forms.sheet import Sheet, plain
from fastsample.results.forms.sheet import to_rich as draw
from fastsample.results.metrics import MAIN, REAL, metric_of
from fastsample.results.protocol import Protocol
from fastsample.results.training import trained_on

__all__ = ["differences", "overview", "overview_sheet", "select", "sentences", "to_rich"]

_FIELDS = {"samples", *Protocol.model_fields} - {"preset", "reference"}  # reference: the row's own fact tells which

_MOST_LISTED = 24  # cells of an error


def select(
    rows: pd.DataFrame,
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows of some models and solvers, in the order named, and with some fields; None asks for nothing.

    Args:
        rows: of `results.row.frame_of`.
        solvers: `name` (with whatever options) or `name:option=value,...` as the row has it.
        where: `field=value`, the fields being those that `differences` names, such as `samples=1000`.

    Raises:
        ValueError: for a word that no row fits.
    """
    specs = rows["solver"] + rows["options"].map(lambda text: f":{text}" if text else "")
    for columns, words in (([rows["model"]], models), ([rows["solver"], specs], solvers)):
        if words is not None:
            rows = pd.concat([_fitting(rows, word, *columns) for word in dict.fromkeys(words)])
            rows = rows[~rows.index.duplicated()]
    for condition in where or ():
        field, _, value = condition.partition("=")
        if field not in rows:
            raise ValueError(nearest(field, list(rows.columns), "field of rows"))
        rows = _fitting(
            rows, value, rows[field].map(lambda held: f"{held:g}" if isinstance(held, float) else str(held))
        )
    return rows


def _fitting(rows: pd.DataFrame, word: str, *columns: pd.Series) -> pd.DataFrame:
    found = rows[pd.concat([column.loc[rows.index] == word for column in columns], axis=1).any(axis=1)]
    if found.empty:
        known = sorted(set(columns[-1].loc[rows.index]), key=_in_order)
        raise ValueError(f"no row fits {word!r}; there are {', '.join(known)}")
    return found


def _in_order(text: str) -> tuple[float, str]:
    """What sorts numbers by what they are, before words."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def overview(rows: pd.DataFrame, cells: bool = False) -> pd.DataFrame:
    """One line per row of a store, with the columns that a reader compares first.

    Columns: model, solver (with options), grid, NFE (what was made; "made/asked" where they differ), the training where
    a sampler was trained, each field of the protocol, and reference or extractor, in which rows of one model differ,
    metrics, images/s (network and solver), and the share of solver arithmetic and metrics on top of the
    network's time. Of each model and NFE the best come first, by `MAIN` or else the first metric.
    """
    if rows.empty:
        return pd.DataFrame()
    table = pd.DataFrame({
        "model": rows["model"],
        "solver": rows["solver"] + rows["options"].map(lambda text: f":{text}" if text else ""),
        "grid": rows["grid"],
        "NFE": [_nfe(made, asked) for made, asked in zip(rows["nfe"], rows["nfe_asked"], strict=True)],
    })  # fmt: skip
    trained = [trained_on(row) for row in rows.to_dict("records")]
    if set(trained) != {"nothing"}:
        table["trained on"] = trained
    for column in rows.columns:
        if column in _FIELDS or column.startswith(("protocol.reference[", "protocol.extractor[")):
            told = rows[column].map(
                lambda value: "-" if pd.isna(value) or value == "" else shortened(str(value)).strip("'")
            )
            if (told.groupby(rows["model"]).nunique() > 1).any():
                table[column.removeprefix("protocol.")] = told
    if cells:
        table["cell"] = rows["cell"]
    for name, head in _metrics(rows).items():
        table[head] = rows[f"metrics.{name}"]
    sampling = (rows["seconds.network"] + rows["seconds.solver"]).replace(0, math.nan)  # of images from elsewhere
    table["images/s"] = rows["samples"] / sampling
    share = (rows["seconds.solver"] + rows["seconds.metrics"]) / rows["seconds.network"].where(
        rows["seconds.network"] > 0
    )
    table["overhead"] = share.map(lambda value: "-" if pd.isna(value) else f"{100 * value:.1f} %")
    table = table.sort_values("solver", kind="stable")
    for name in sorted(_metrics(rows), key=lambda name: metric_of(name).kind != MAIN)[:1]:
        table = sorted_frame(table, metric_of(name).head(name), _better(rows))
    return table.sort_values(["model", "NFE"], key=_order, kind="stable").reset_index(drop=True)


def overview_sheet(
    rows: pd.DataFrame, sort: str = "", notes: Sequence[tuple[str, str]] = (), cells: bool = False
) -> Sheet:
    """The overview to print: what is the same in all rows stands in the caption, above solvers with their numbers.

    Args:
        sort: a column, whose best come first; notes: of the sheet; cells: with their ids.

    Raises:
        ValueError: for a column that there is not.
    """
    frame = overview(rows, cells)
    measured = {*_metrics(rows).values(), "images/s", "overhead", "solver"}
    frame = sorted_frame(frame, sort, _better(rows)) if sort else frame
    return plain(frame, notes=tuple(notes), settings=[str(name) for name in frame if name not in measured])


def _metrics(rows: pd.DataFrame) -> dict[str, str]:
    """The metrics of rows, but what is stored beside one, with the heads of their columns."""
    names = [str(name)[8:] for name in rows.columns if str(name).startswith("metrics.")]
    return {name: metric_of(name).head(name) for name in names if name not in metric_of(name).summaries}


def _better(rows: pd.DataFrame) -> dict[str, bool]:
    """Of which columns of an overview larger values are better."""
    return {head: metric_of(name).higher for name, head in _metrics(rows).items()} | {"images/s": True}


def _order(column: pd.Series) -> pd.Series:
    return column.map(lambda value: int(str(value).split("/")[0])) if column.name == "NFE" else column


def _nfe(made: int, asked: int) -> str:
    return str(made) if made == asked else f"{made}/{asked}"


def to_rich(frame: pd.DataFrame) -> Group:
    """A frame for a rich console; numbers to the right, floats with two to four digits."""
    return draw(plain(frame))


def differences(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """The fields in which two rows differ, with both values; cells may be shortened to a unique beginning.

    Raises:
        ValueError: for a beginning that no cell or more than one cell has.
    """
    chosen = []
    for beginning in (first, second):
        found = rows[rows["cell"].str.startswith(beginning)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} cells begin with {beginning!r}; {_listed(rows if found.empty else found)}")
        chosen.append(found.iloc[0])
    one, two = chosen
    lines = [(name, str(one[name]), str(two[name])) for name in rows.columns if str(one[name]) != str(two[name])]
    return pd.DataFrame(lines, columns=["field", *(str(row["cell"]) for row in chosen)])


def _listed(rows: pd.DataFrame) -> str:
    """The cells of rows, each with what it is of; of many the first."""
    told = [f"{row['cell']} is {cell_text([row[name] for name in CELL])}" for _, row in rows[:_MOST_LISTED].iterrows()]
    more = [f"and {len(rows) - len(told)} more, which `fastsample show --cells` lists"] if len(rows) > len(told) else []
    return "; ".join([*told, *more])


def sentences(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """What stands below a table of these metrics.

    Args:
        rows: of `results.row.frame_of`.
        names: full names.
    """
    said = []
    for metric in dict.fromkeys(map(metric_of, names)):
        if "{" not in metric.sentence:
            said.append(metric.sentence)
            continue
        needed = [f"metrics.{metric.bound}", "protocol.psnr reference"]
        if not {*needed} <= {*rows}:
            continue
        one_each = rows.dropna(subset=needed).drop_duplicates("model")
        titles = one_each[needed[-1]].str.replace(r" \([0-9a-f]{16}\)$", "", regex=True)
        for title, group in one_each.groupby(titles, sort=False):
            bounds = ", ".join(f"{row[needed[0]]:.1f} dB ({row['model']})" for _, row in group.iterrows())
            said.append(metric.sentence.format(reference=title, bounds=bounds))
    for name in names:
        if (field := f"protocol.{REAL.format(name)}") in rows:
            said += [f"{metric_of(name).called(name)} of real images: {told}." for told in rows[field].dropna()]
    return [text for text in dict.fromkeys(said) if text]
