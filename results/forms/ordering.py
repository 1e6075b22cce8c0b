"""The order of the rows of a printed table: by a column that is asked for, or the best first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from fastsample.datasets.names import nearest
from fastsample.results.forms.sheet import Sheet

__all__ = ["best_first", "sorted_by", "sorted_frame"]

_LONG = 12  # rows of a table that is read from its top


def sorted_frame(frame: pd.DataFrame, column: str, higher: Mapping[str, bool]) -> pd.DataFrame:
    """The frame by one of its columns, the best first; what is missing comes last.

    Args:
        column: its head, or the beginning of it, in whatever case.
        higher: columns whose larger values are better; without an entry the smaller come first.

    Raises:
        ValueError: for a column that there is not.
    """
    name = _named([str(name) for name in frame], column)
    values = frame[name].map(_number)
    key = values if values.notna().any() else frame[name].astype(str)
    order = key.sort_values(ascending=not higher.get(name, False), kind="stable", na_position="last").index
    return frame.loc[order].reset_index(drop=True)


def sorted_by(sheet: Sheet, column: str, higher: Callable[[Sequence[str]], bool]) -> Sheet:
    """The sheet with its rows by a column, the best first, within what the outer columns name.

    Args:
        column: a head of the rows, such as `solver`, or of a column; of several lines of heads what tells it from the
            others, such as `10` or `fd 10`.
        higher: whether larger values of the column with such heads are better.

    Raises:
        ValueError: for a column that there is not.
    """
    stub = [name.partition(" / ")[0].lower() for name in sheet.stub]
    if column.lower() in stub:
        texts = [names[stub.index(column.lower())].text.lower() for names, _ in sheet.lines]
        return _taken(sheet, sorted(range(len(texts)), key=texts.__getitem__))
    heads = [" ".join(label.text for label in labels) for labels in zip(*sheet.heads, strict=True)]
    place = heads.index(_named(heads, column))
    labels = [line[place].text for line in sheet.heads]
    values = [_number(body[place].text) for _, body in sheet.lines]
    gains = [-value if higher(labels) else value for value in values]
    return _taken(sheet, sorted(range(len(gains)), key=lambda row: (math.isnan(gains[row]), gains[row])))


def best_first(sheet: Sheet, higher: Callable[[Sequence[str]], bool]) -> Sheet:
    """A long sheet with its rows by the mean of their places over the columns of what was measured."""
    if len(sheet.lines) <= _LONG:
        return sheet
    heads = [[label.text for label in labels] for labels in zip(*sheet.heads, strict=True)]
    measured = [place for place, labels in enumerate(heads) if labels[-1] not in ("published", "difference")]
    sign = [-1 if higher(heads[place]) else 1 for place in measured]
    gains = pd.DataFrame([[_number(body[place].text) for place in measured] for _, body in sheet.lines]).mul(sign)
    outer = [str([name.text for name in names[:-1]]) for names, _ in sheet.lines]
    places = gains.groupby(outer).rank().mean(axis=1)
    found = _taken(sheet, list(places.sort_values(kind="stable", na_position="last").index))
    told = "Rows: the best first, by the mean of their places over the columns."
    return replace(found, notes=(*found.notes, ("", told)))


def _taken(sheet: Sheet, order: Sequence[int]) -> Sheet:
    """The rows in an order, kept together by what their outer columns name."""
    outer = [tuple(name.text for name in names[:-1]) for names, _ in sheet.lines]
    first = list(dict.fromkeys(outer))
    return replace(sheet, frame=sheet.frame.iloc[sorted(order, key=lambda row: first.index(outer[row]))])


def _named(heads: Sequence[str], column: str) -> str:
    """The one head that is, begins with, or holds the words of a column's name; the first of several."""
    words = column.lower().split()
    tests: tuple[Callable[[list[str]], bool], ...] = (
        lambda told: told == words,
        lambda told: bool(words) and all(word in told for word in words),
        lambda told: bool(words) and all(any(one.startswith(word) for one in told) for word in words),
    )
    for test in tests:
        for head in heads:
            if test(head.lower().split()):
                return head
    raise ValueError(nearest(column, [*heads], "column"))


def _number(value: object) -> float:
    """What stands at the beginning of a value, such as 9 of 9/10; NaN where that is no number."""
    match = re.match(r"[+-]?\d[\d,]*\.?\d*(e[+-]?\d+)?", str(value))
    return float(match[0].replace(",", "")) if match else math.nan
