"""What papers report: each number with its source, and how well the source is known.

`published/*.csv`, one file a paper, share these columns ("" or NaN where the source does not say):

    paper             arXiv id
    table             table, figure, abstract or README that prints it
    dataset           as printed, in one spelling
    resolution        pixels
    checkpoint        as printed
    model             our id of that checkpoint, only where it is certain
    guidance          weight w of (1 + w) conditional - w unconditional; NaN without guidance, or where none is stated
    schedule          as printed: discrete or continuous time, noise path or time grid
    solver            as printed
    fastsample_solver our name with options, only where the method is certain
    grid              our grid, only where it is certain
    nfe, nfe_text     evaluations, and how they are printed, such as "16x2" (two network calls each) or "adaptive"
    metric            fid, is, recall, psnr or the paper's own words
    samples           where stated, as in FID-30K
    value, unit       unit "" for metrics without one
    evidence          abstract, table of the paper, secondary report, approximate reading, ...
    note              all else that the source says
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fastsample.datasets.names import guidance_words
from fastsample.results.metrics import extractor_of, metric_of
from fastsample.results.sheet import Footnotes, Sheet, plain

__all__ = ["COLUMNS", "beside", "published", "search", "summary"]

COLUMNS = (
    "paper", "table", "dataset", "resolution", "checkpoint", "model", "guidance", "schedule", "solver",
    "fastsample_solver", "grid", "nfe", "nfe_text", "metric", "samples", "value", "unit", "evidence", "note",
)  # fmt: skip
_NUMBERS = {"resolution": "Int64", "guidance": "float64", "nfe": "Int64", "samples": "Int64", "value": "float64"}
_USUAL = 50_000  # samples of an FID whose number is not stated


@cache
def published() -> pd.DataFrame:
    """All published numbers, with the columns above."""
    files = sorted((Path(__file__).parent / "published").glob("*.csv"))
    types = {name: _NUMBERS.get(name, "str") for name in COLUMNS}
    missing = {name: [""] for name in _NUMBERS}
    frames = [pd.read_csv(file, dtype=types, keep_default_na=False, na_values=missing) for file in files]
    return pd.concat(frames, ignore_index=True)


def search(numbers: pd.DataFrame, **words: str | float | None) -> pd.DataFrame:
    """Numbers whose columns hold the words, whatever their case, spaces and hyphens; None asks for nothing.

    `solver` and `model` look at our names and at the printed ones; numeric columns have to be equal.

    Raises:
        ValueError: for a column that there is not.
    """
    for name, word in words.items():
        if name not in COLUMNS:
            raise ValueError(f"published numbers have no column {name!r}; columns: {', '.join(COLUMNS)}")
        if word is None:
            continue
        if name in _NUMBERS:
            numbers = numbers[(numbers[name] == word).fillna(False)]
            continue
        places = {"solver": ["solver", "fastsample_solver"], "model": ["model", "checkpoint"]}.get(name, [name])
        hits = [numbers[place].map(_bare).str.contains(_bare(str(word)), regex=False) for place in places]
        numbers = numbers[np.logical_or.reduce(hits)]
    return numbers.reset_index(drop=True)


def _bare(text: str) -> str:
    return re.sub(r"[\s_-]", "", text.lower())


def summary(numbers: pd.DataFrame) -> Sheet:
    """Published numbers to read, each with its source as a footnote; the data hold all columns."""
    samples = numbers["samples"].map(lambda count: "" if pd.isna(count) else f"@{count}")
    sheet = plain(pd.DataFrame({
        "paper": numbers["paper"],
        "data set": numbers["dataset"] + numbers["resolution"].map(lambda side: "" if pd.isna(side) else f" {side}"),
        "checkpoint": numbers["model"].where(numbers["model"] != "", numbers["checkpoint"]),
        "solver": numbers["solver"], "fastsample": numbers["fastsample_solver"], "NFE": numbers["nfe_text"],
        "metric": numbers["metric"] + samples + numbers["unit"].map(lambda unit: f" [{unit}]" if unit else ""),
        "value": numbers["value"],
    }))  # fmt: skip
    notes, frame, sources = Footnotes(), sheet.frame, [_told(number) for _, number in numbers.iterrows()]
    marked = [notes.on(e, [source]) for e, source in zip(frame.iloc[:, -1], sources, strict=True)]
    frame.isetitem(frame.shape[1] - 1, marked)
    return Sheet(frame, numbers, notes=tuple(notes.texts))


def beside(
    found: pd.DataFrame, rows: pd.DataFrame, numbers: pd.DataFrame, same: Callable[[str], str]
) -> tuple[pd.DataFrame, list[str]]:
    """Put reported numbers of the same checkpoint, solver, evaluations, guidance and metric beside measured ones.

    Args:
        found: of `results.layout.evidence`.
        rows: of `results.row.frame_of`, that it was made of.
        numbers: of `published`.
        same: the complete form of `name:option=value,...`, by which two solvers are known to be the same.

    Returns:
        `found` with the columns published and difference (measured minus published, only where the number of samples
        is the same, 50,000 where a paper does not state it, and the reference set is of the paper's data) and sources,
        each a tuple; and sentences on what was not found.
    """
    known = numbers[(numbers["model"] != "") & (numbers["fastsample_solver"] != "")]
    forms = known["fastsample_solver"].map({text: same(text) for text in known["fastsample_solver"].unique()})
    values, differences, sources = [], [], []
    strange: list[str] = []
    for line in found.to_dict("records"):
        hits = known[
            (known["model"] == line["model"]) & (forms == same(line["solver"]))
            & (known["nfe"] == line["nfe"]).fillna(False)
            & (known["metric"] == metric_of(line["metric"]).kind) & (known["guidance"].fillna(0.0) == line["guidance"])
        ]  # fmt: skip
        values.append(tuple(dict.fromkeys(hits["value"])))
        equal = (hits["samples"].fillna(_USUAL) == line["samples"]).all()
        if not _of_same_data(rows[rows["cell"].isin(line["cells"])], line["metric"], hits):
            strange, equal = [*strange, line["model"]], False
        differences.append(tuple(round(line["value"] - value, 6) for value in values[-1]) if equal else ())
        sources.append(tuple(_source(hit, line["grid"]) for _, hit in hits.iterrows()))
    columns = {"published": values, "difference": differences, "sources": sources}
    wide = found.assign(**{name: pd.Series(column, index=found.index) for name, column in columns.items()})
    notes = []
    for model, group in wide.groupby("model", sort=False):
        if not (numbers["model"] == model).any():
            notes.append(f"No published numbers are known for {model}.")
        elif not group["published"].map(bool).any():
            notes.append(f"No published number of {model} has the same solver, evaluations and metric.")
    if strange:
        names = ", ".join(dict.fromkeys(strange))
        notes.append(f"No difference is formed for {names}: these rows were measured against images of other data.")
    short = wide[wide["published"].map(bool) & ~wide["difference"].map(bool) & ~wide["model"].isin(strange)]
    if len(short):
        notes.append("No difference is formed where a paper's number of samples, 50,000 if not stated, is another.")
    return wide, notes


def _of_same_data(rows: pd.DataFrame, metric: str, hits: pd.DataFrame) -> bool:
    """Whether the reference set of rows is of the data that published numbers are of; older rows may have another."""
    column = f"protocol.reference[{extractor_of(metric)}]"
    told = rows[column].dropna() if column in rows else ()
    return all(_bare(text.partition("-train@")[0]) == _bare(data) for text in told for data in hits["dataset"])


def _told(number: pd.Series) -> str:
    scale = "" if pd.isna(number["guidance"]) else guidance_words(1 + number["guidance"])
    return _joined((number["table"], number["schedule"], scale, number["evidence"], number["note"]))


def _source(hit: pd.Series, grid: str) -> str:
    other = {"": "time grid not stated", grid: ""}.get(hit["grid"], f"on the grid {hit['grid']}")
    count = f"{hit['samples']:,} samples" if not pd.isna(hit["samples"]) else ""
    where = f"arXiv {hit['paper']}, {hit['table']}"
    return _joined((where, hit["schedule"], hit["evidence"], other, count, hit["note"]))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))
