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
    method            one name whatever the order, grid or spelling, such as ipndm, unipc-3, ipndm+gits or gas; that of
                      an ablation ends in -ablation
    calls             evaluations of the (guided) denoiser that are really made; NaN where that is not known
    nfe_meaning       what the printed nfe is: see `results.papers.stated.MEANINGS`
    teacher_or_floor  `teacher`, `teacher 2.03` (what it was trained towards), `floor` (best known of the checkpoint)
    trained_on        none, statistics (of models or trajectories, searches), mse, l1, lpips, inception (the network of
                      FID), adversarial, classifier, reward, weights (the network itself was trained), unknown
    protocol          of the measurement, `; ` between its parts: see `results.papers.stated`
    quoted_from       arXiv id that the value was copied from: no measurement of this paper
    source_version    commit or version that was read
    confidence        high: read in the source; medium: one good secondary text; low: secondary, not found again

`published/disagreements.tsv` has the values of cells on which papers disagree by 0.5 % or more, and the likely reason,
`published/papers.tsv` a short name of each paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fastsample.datasets.names import guidance_words
from fastsample.results.forms.ordering import sorted_frame
from fastsample.results.forms.sheet import Footnotes, Sheet, plain
from fastsample.results.metrics import metric_of
from fastsample.results.papers.stated import MEANINGS, Suite, bare, deltas, kind_of, nfe_words

__all__ = [
    "COLUMNS", "beside", "disagreements", "papers", "printed", "published", "search", "source_of",
    "summary",
]  # fmt: skip

COLUMNS = (
    "paper", "table", "dataset", "resolution", "checkpoint", "model", "guidance", "schedule", "solver",
    "fastsample_solver", "grid", "nfe", "nfe_text", "metric", "samples", "value", "unit", "evidence", "note",
    "method", "calls", "nfe_meaning", "teacher_or_floor", "trained_on", "protocol", "quoted_from", "source_version",
    "confidence",
)  # fmt: skip
_NUMBERS = {
    "resolution": "Int64", "guidance": "float64", "nfe": "Int64", "samples": "Int64", "value": "float64",
    "calls": "Int64",
}  # fmt: skip
_PLACES = {"solver": ["solver", "fastsample_solver", "method"], "model": ["model", "checkpoint"]}
_WHOLE = {"model", "metric", "method", "trained_on", "confidence"}  # `is` is not a part of `precision`
_FOLDER = Path(__file__).parent / "published"


@cache
def published() -> pd.DataFrame:
    """All published numbers, with the columns above."""
    return pd.concat([_read(file) for file in sorted(_FOLDER.glob("*.csv"))], ignore_index=True)


@cache
def disagreements() -> pd.DataFrame:
    """The values of cells on which papers disagree: spread_percent, model (our id, or data set, resolution and
    checkpoint as printed), method, calls, metric, guidance, value, paper, table, quoted_from and the likely reason."""
    return _read(_FOLDER / "disagreements.tsv", "\t")


def printed(cell: pd.DataFrame) -> str:
    """The values of one cell of `disagreements`, each with its papers."""
    names = cell["paper"] + cell["quoted_from"].map(lambda paper: " quoted" if paper else "")
    return "; ".join(f"{value:g} ({', '.join(dict.fromkeys(group))})" for value, group in names.groupby(cell["value"]))


@cache
def papers() -> dict[str, str]:
    """A short name of each paper by its arXiv id, with what of it was read where that is not the whole."""
    return dict(_read(_FOLDER / "papers.tsv", "\t").itertuples(index=False, name=None))


def _read(file: Path, separator: str = ",") -> pd.DataFrame:
    names = pd.read_csv(file, sep=separator, nrows=0).columns
    types = {name: _NUMBERS.get(name, "str") for name in names}
    missing = {name: [""] for name in _NUMBERS if name in names}
    return pd.read_csv(file, sep=separator, dtype=types, keep_default_na=False, na_values=missing)


def search(numbers: pd.DataFrame, **words: str | float | None) -> pd.DataFrame:
    """Numbers whose columns hold the words, whatever their case, spaces and hyphens; None asks for nothing.

    `solver` and `model` look at our names and at the printed ones, `solver` at the method too. Where a model, metric,
    method, what it was trained on, or confidence is the whole word, those that have it as a part do not count. Numeric
    columns have to be equal.

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
        texts = [numbers[place].map(bare) for place in _PLACES.get(name, [name])]
        hits = np.logical_or.reduce([text == bare(str(word)) for text in texts])
        if name not in _WHOLE or not hits.any():
            hits = np.logical_or.reduce([text.str.contains(bare(str(word)), regex=False) for text in texts])
        numbers = numbers[hits]
    return numbers.reset_index(drop=True)


def summary(numbers: pd.DataFrame, sort: str = "") -> Sheet:
    """Published numbers to read, each with its source as a footnote; the data hold all columns.

    Args:
        sort: one of the data's columns, the best first.

    Raises:
        ValueError: for a column that there is not.
    """
    if sort:
        numbers = sorted_frame(numbers, sort, {"value": metric_of(numbers["metric"].iloc[0]).higher})
    samples = numbers["samples"].map(lambda count: "" if pd.isna(count) else f"@{count}")
    sheet = plain(pd.DataFrame({
        "paper": numbers["paper"],
        "data set": numbers["dataset"] + numbers["resolution"].map(lambda side: "" if pd.isna(side) else f" {side}"),
        "checkpoint": numbers["model"].where(numbers["model"] != "", numbers["checkpoint"]),
        "solver": numbers["solver"], "fastsample": numbers["fastsample_solver"],
        "NFE": [nfe_words(number) for number in numbers.to_dict("records")],
        "metric": numbers["metric"] + samples + numbers["unit"].map(lambda unit: f" [{unit}]" if unit else ""),
        "value": numbers["value"],
    }), settings=("paper", "data set", "checkpoint", "solver", "fastsample", "NFE", "metric"))  # fmt: skip
    notes, frame = Footnotes(), sheet.frame
    told = map(source_of, numbers.to_dict("records"))
    marked = [notes.on(e, [source]) for e, source in zip(frame.iloc[:, -1], told, strict=True)]
    frame.isetitem(frame.shape[1] - 1, marked)
    other = [name for name in MEANINGS if name != "calls" and name in set(numbers["nfe_meaning"])]
    foot = [("", f"NFE counts evaluations of the denoiser; ({name}): {MEANINGS[name]}.") for name in other]
    return replace(sheet, frame=frame, data=numbers, notes=(*notes.texts, *foot))


def source_of(number: Mapping[Any, Any]) -> str:
    """Where a published number is printed and what its source says, in one line."""
    return _joined((
        number["table"], number["schedule"],
        "" if pd.isna(number["guidance"]) else guidance_words(1 + number["guidance"]), number["evidence"],
        f"quoted from {number['quoted_from']}" if number["quoted_from"] else "",
        f"trained on {number['trained_on']}" if number["trained_on"] not in ("", "none") else "",
        number["teacher_or_floor"], number["protocol"], f"confidence {number['confidence']}", number["note"],
    ))  # fmt: skip


def beside(
    found: pd.DataFrame, rows: pd.DataFrame, numbers: pd.DataFrame, suite: Suite
) -> tuple[pd.DataFrame, list[str]]:
    """Put reported numbers of the same checkpoint, solver, grid, calls, guidance and metric beside measured ones.

    A number that a paper quotes is left out beside the same one of a paper that measured it.

    Args:
        found: of `results.layout.evidence`.
        rows: of `results.row.frame_of`, that it was made of.
        numbers: of `published`.
        suite: what the registries know.

    Returns:
        `found` with the columns published, difference (measured minus published: one for each of them, NaN where the
        protocols differ in a field that decides; none if none can be formed) and sources, each a tuple; and sentences
        on what was not found and why no difference is formed.
    """
    known = numbers[(numbers["model"] != "") & (numbers["fastsample_solver"] != "")]
    forms = known["fastsample_solver"].map({text: suite.same(text) for text in known["fastsample_solver"].unique()})
    columns: dict[str, list[tuple[Any, ...]]] = {"published": [], "difference": [], "sources": []}
    fields: list[str] = []
    for line in found.to_dict("records"):
        hits = known[
            (known["model"] == line["model"]) & (forms == suite.same(line["solver"]))
            & known["grid"].isin(["", line["grid"]]) & (known["calls"] == line["made"]).fillna(False)
            & (known["metric"] == kind_of(line["metric"])) & (known["guidance"].fillna(0.0) == line["guidance"])
        ]  # fmt: skip
        own = rows[rows["cell"].isin(line["cells"])]
        row = {**own.iloc[0], "metric": line["metric"]}
        hits = hits if not row["classifier_scale"] else hits[:0]
        hits = hits[(hits["quoted_from"] == "") | ~hits["value"].isin(hits.loc[hits["quoted_from"] == "", "value"])]
        formed, other = dict.fromkeys(hits["value"], math.nan), {}
        for hit in hits.to_dict("records"):
            other[hit["value"]] = [str(delta) for delta in deltas(hit, row, suite) if delta.decides]
            if not other[hit["value"]]:
                formed[hit["value"]] = round(line["value"] - hit["value"], 6)
        fields += [field for value, names in other.items() if math.isnan(formed[value]) for field in names]
        columns["published"].append(tuple(formed))
        columns["difference"].append(() if all(map(math.isnan, formed.values())) else tuple(formed.values()))
        columns["sources"].append(tuple(_source(hit) for hit in hits.to_dict("records")))
    wide = found.assign(**{name: pd.Series(column, index=found.index) for name, column in columns.items()})
    notes = []
    for model, group in wide.groupby("model", sort=False):
        if not (numbers["model"] == model).any():
            notes.append(f"No published numbers are known for {model}.")
        elif not group["published"].map(bool).any():
            notes.append(f"No published number of {model} has the same solver, grid, calls and metric.")
    if fields:
        notes.append(f"No difference is formed where protocols differ: {'; '.join(dict.fromkeys(fields))}.")
    return wide, notes


def _source(hit: Mapping[Any, Any]) -> str:
    grid = "" if hit["grid"] else "time grid not stated"
    count = "" if pd.isna(hit["samples"]) else f"{hit['samples']:,} samples"
    return _joined((f"arXiv {hit['paper']}", source_of(hit), grid, count))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))
