"""The tables of docs/published.md and docs/protocols.md, from the published numbers and the protocols of papers.

Each stands between `<!-- NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from fastsample.results.papers.presets import protocol_lines
from fastsample.results.papers.stated import MEANINGS
from fastsample.results.published import disagreements, papers, printed, published

__all__ = ["filled"]


def filled(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        KeyError: for the name of a table that there is not.
    """
    tables = {"papers": _papers, "meanings": _meanings, "disagreements": _disagreements, "protocols": _protocols}
    return re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- end -->)",
        lambda match: match[1] + "\n" + tables[match[2]]() + "\n" + match[3],
        page,
        flags=re.DOTALL,
    )


def _protocols() -> str:
    head, lines = protocol_lines()
    return _table(head, lines)


def _papers() -> str:
    numbers, names = published(), papers()
    lines = [(paper, name, *_counts(numbers[numbers["paper"] == paper])) for paper, name in sorted(names.items())]
    head = ("paper", "name", "numbers", "mapped", "quoted", "high / medium / low")
    return _table(head, [*lines, ("all", "", *_counts(numbers))])


def _counts(numbers: pd.DataFrame) -> tuple[str, ...]:
    mapped = (numbers["model"] != "") & (numbers["fastsample_solver"] != "")
    levels = [(numbers["confidence"] == level).sum() for level in ("high", "medium", "low")]
    counts = len(numbers), mapped.sum(), (numbers["quoted_from"] != "").sum()
    return (*map(str, counts), " / ".join(map(str, levels)))


def _meanings() -> str:
    counts = published()["nfe_meaning"].value_counts()
    lines = [(name, text, counts[name]) for name, text in ({**MEANINGS, "": "not stated"}).items()]
    return _table(("nfe_meaning", "what the printed NFE is", "numbers"), lines)


def _disagreements() -> str:
    lines = []
    known = disagreements().fillna({"guidance": 0.0})
    names = ["model", "method", "calls", "metric"]
    for _, cell in known.groupby([*names, "guidance"], sort=False):
        spread, reason = cell[["spread_percent", "reason"]].iloc[0]
        lines.append((f"{float(spread):.1f} %", *cell[names].iloc[0], printed(cell), reason))
    return _table(("spread", *names, "values (papers)", "likely reason"), lines)


def _table(head: tuple[str, ...], lines: Sequence[tuple[object, ...]]) -> str:
    rows = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows) + "\n"
