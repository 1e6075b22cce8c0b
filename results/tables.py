"""Tables for people: from a frame of rows to what the terminal shows."""

from __future__ import annotations

import pandas as pd
from rich.markup import escape
from rich.table import Table

__all__ = ["differences", "matrix", "overview", "to_markdown", "to_rich"]


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per row of a store, with the columns that a reader compares first.

    Columns: model, solver (with options), grid, NFE (what was made; "made/asked" where they differ), the
    metrics, images/s (network and solver), ms per image, and the share of solver arithmetic and
    metrics on top of the network's time.
    """
    if rows.empty:
        return pd.DataFrame()
    table = pd.DataFrame({
        "model": rows["model"],
        "solver": rows["solver"] + rows["options"].map(lambda text: f":{text}" if text else ""),
        "grid": rows["grid"],
        "NFE": [_nfe(made, asked) for made, asked in zip(rows["nfe"], rows["nfe_asked"], strict=True)],
    })  # fmt: skip
    for column in rows.columns:
        name = column.removeprefix("metrics.")
        if name != column and name not in ("psnr_median", "psnr_pooled", "psnr_reference"):
            table["PSNR [dB]" if name == "psnr" else name] = rows[column]
    sampling = rows["seconds.network"] + rows["seconds.solver"]
    table["images/s"] = rows["samples"] / sampling
    table["ms/image"] = 1e3 * sampling / rows["samples"]
    share = (rows["seconds.solver"] + rows["seconds.metrics"]) / rows["seconds.network"].where(
        rows["seconds.network"] > 0
    )
    table["overhead"] = share.map(lambda value: "-" if pd.isna(value) else f"{100 * value:.1f} %")
    return table.sort_values(["model", "NFE", "solver"], key=_order, kind="stable").reset_index(drop=True)


def _order(column: pd.Series) -> pd.Series:
    return column.map(lambda value: int(str(value).split("/")[0])) if column.name == "NFE" else column


def _nfe(made: int, asked: int) -> str:
    return str(made) if made == asked else f"{made}/{asked}"


def to_rich(frame: pd.DataFrame, title: str | None = None) -> Table:
    """A rich table of a frame; numbers to the right, floats with two to four digits."""
    table = Table(title=title, header_style="bold")
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name]) or name in ("NFE", "overhead")
        table.add_column(escape(str(name)), justify="right" if numeric else "left", no_wrap=name in ("solver", "NFE"))
    for _, row in frame.iterrows():
        table.add_row(*(escape(_cell(str(name), value)) for name, value in row.items()))
    return table


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return "-"
    return f"{value:.1f}" if name in ("images/s",) else f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def differences(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """The fields in which two rows differ, with both values; cells may be shortened to a unique beginning.

    Raises:
        ValueError: for a beginning that no cell or more than one cell has.
    """
    chosen = []
    for beginning in (first, second):
        found = rows[rows["cell"].str.startswith(beginning)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} cells begin with {beginning!r}; cells: {', '.join(rows['cell'])}")
        chosen.append(found.iloc[0])
    one, two = chosen
    lines = [(name, str(one[name]), str(two[name])) for name in rows.columns if str(one[name]) != str(two[name])]
    return pd.DataFrame(lines, columns=["field", *(str(row["cell"]) for row in chosen)])


def matrix(rows: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """One metric of a store: a line per (model, solver, grid), a column per NFE asked.

    Raises:
        ValueError: for a metric that no row has; the message lists those there are.
    """
    known = [name.removeprefix("metrics.") for name in rows.columns if name.startswith("metrics.")]
    if metric not in known:
        raise ValueError(f"no row has the metric {metric!r}; there are {', '.join(known)}")
    solver = rows["solver"] + rows["options"].map(lambda text: f":{text}" if text else "")
    table = rows.assign(solver=solver).pivot_table(
        index=["model", "solver", "grid"], columns="nfe_asked", values=f"metrics.{metric}", sort=True
    )
    table.columns = [f"NFE {nfe}" for nfe in table.columns]
    return table.reset_index()


def to_markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, with the digits of `to_rich`."""
    lines: list[list[str]] = [list(frame.columns), ["---"] * len(frame.columns)]
    lines += [[_cell(str(name), value) for name, value in row.items()] for _, row in frame.iterrows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
