"""Printed tables: one frame of entries, drawn for the terminal or written as Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from string import ascii_lowercase
from typing import Literal

import pandas as pd
from rich.console import Group
from rich.markup import escape

from fastsample.results.forms.escaping import csv_text, latex, markdown, visible
from fastsample.results.forms.latex import DOCUMENT, short_heads
from fastsample.results.forms.screen import FittedTable

__all__ = ["FORMATS", "Entry", "Footnotes", "Sheet", "linked_html", "plain", "to_rich", "write"]

FORMATS = ("rich", "markdown", "latex", "html", "csv")


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: the number or the words.
        spread: half-width of its interval; "" for none.
        rank: `best` and `second` are set off; `tied` are the best where they cannot be told apart.
        marks: letters of its footnotes.
        row: the cell of the row that it comes from, which a page leads to.
    """

    text: str = ""
    spread: str = ""
    rank: Literal["", "best", "second", "tied"] = ""
    marks: tuple[str, ...] = ()
    row: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table to print.

    Attributes:
        frame: of `Entry`, also in the levels of its columns (the heads, outermost first) and of its index (what names
            the rows; a RangeIndex names nothing).
        data: the same facts with one fact a column, for CSV.
        caption: what the table shows.
        notes: (letter, text) of each footnote; the letter is "" for those of the whole table.
        settings: columns of the frame that stand in the caption where they are the same in all rows.
    """

    frame: pd.DataFrame
    data: pd.DataFrame
    caption: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def stub(self) -> list[str]:
        """Heads of the columns that name the rows; the last also says what runs across, as in `solver / NFE`."""
        if isinstance(self.frame.index, pd.RangeIndex):
            return []
        *outer, last = (str(name) for name in self.frame.index.names)
        across = self.frame.columns.names[-1]
        return [*outer, f"{last} / {across}" if across else last]

    @property
    def heads(self) -> list[list[Entry]]:
        """The lines above the body, outermost first."""
        return [list(self.frame.columns.get_level_values(level)) for level in range(self.frame.columns.nlevels)]

    @property
    def lines(self) -> list[tuple[list[Entry], list[Entry]]]:
        """Of each row its names, as many as `stub`, and its body."""
        keys = [list(key) if isinstance(key, tuple) else [key] for key in self.frame.index]
        return [(key if self.stub else [], list(row)) for key, row in zip(keys, self.frame.to_numpy(), strict=True)]


def _settled(sheet: Sheet) -> Sheet:
    """The sheet with its settings that are everywhere the same in the caption."""
    heads = [entry.text for entry in sheet.heads[-1]]
    columns = {name: sheet.frame.iloc[:, heads.index(name)] for name in sheet.settings if name in heads}
    same = {name: column.iloc[0] for name, column in columns.items() if column.nunique() == 1}
    told = ", ".join(f"{name} {one.text}" for name, one in same.items() if one.text not in ("", "-"))
    kept = [place for place, name in enumerate(heads) if name not in same]
    caption = ", ".join(filter(None, (sheet.caption, told)))
    return replace(sheet, frame=sheet.frame.iloc[:, kept], caption=caption, settings=())


class Footnotes:
    """Letters for remarks; equal remarks share one. `texts` lists (letter, remark)."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def on(self, entry: Entry, remarks: Iterable[str]) -> Entry:
        """The entry with the letters of its remarks."""
        return replace(entry, marks=(*entry.marks, *map(self._letter, remarks)))

    def _letter(self, remark: str) -> str:
        for letter, text in self.texts:
            if text == remark:
                return letter
        times, place = divmod(len(self.texts), 26)
        self.texts.append((ascii_lowercase[place] * (times + 1), remark))
        return self.texts[-1][0]


def plain(
    frame: pd.DataFrame, caption: str = "", notes: tuple[tuple[str, str], ...] = (), settings: Sequence[str] = (),
) -> Sheet:  # fmt: skip
    """A frame as a sheet: floats with two to four digits, what is missing as "-"."""
    entries = frame.map(lambda value: Entry(_number(value))).set_axis([Entry(str(name)) for name in frame], axis=1)
    return Sheet(entries.reset_index(drop=True), frame, caption, notes, tuple(settings))


def _number(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    return f"{value:.{2 if abs(value) >= 1 else 4}f}" if isinstance(value, float) else str(value)


def write(sheet: Sheet, form: str) -> str:
    """A sheet as `markdown`, `latex` (a document that pdflatex compiles), `html` (a <table>) or `csv` (its data).

    Raises:
        ValueError: for another format.
    """
    writers: dict[str, Callable[[Sheet], str]] = {
        "markdown": _markdown, "latex": _latex, "html": _html, "csv": lambda sheet: csv_text(sheet.data),
    }  # fmt: skip
    if form not in writers:
        raise ValueError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")
    return writers[form](_settled(sheet))


@dataclass(frozen=True)
class _Style:
    """How a format escapes text, sets an entry off, and writes intervals and footnote letters."""

    escape: Callable[[str], str]
    best: str
    second: str
    spread: str
    mark: str
    signs: Mapping[str, str] = field(default_factory=lambda: {"tied": "="})  # of ranks that it does not set off

    def entry(self, entry: Entry) -> str:
        text = self.escape(entry.text)
        if entry.rank in ("best", "second"):
            text = (self.best if entry.rank == "best" else self.second).format(text)
        if entry.spread:
            text += self.spread.format(self.escape(entry.spread))
        marks = [*([self.signs[entry.rank]] if entry.rank in self.signs else []), *entry.marks]
        return text + (self.mark.format(",".join(marks)) if marks else "")

    def flat(self, sheet: Sheet) -> list[str]:
        """All heads in one line."""
        columns = zip(*sheet.heads, strict=True)
        return [*map(self.escape, sheet.stub), *(", ".join(map(self.entry, column)) for column in columns)]

    def notes(self, sheet: Sheet) -> list[str]:
        told = [(f"{self.mark.format(mark)} " if mark else "") + self.escape(text) for mark, text in sheet.notes]
        for rank, word in (("best", "Bold"), ("second", "underlined")):
            told = [text.replace(f"{word}: the {rank}", f"{self.signs.get(rank, word)}: the {rank}") for text in told]
        return told


def _spans(line: list[Entry]) -> list[tuple[Entry, int]]:
    """Equal neighbours of a head line with their number."""
    return [(entry, len(list(group))) for entry, group in groupby(line)]


def _left(sheet: Sheet) -> list[bool]:
    """Which columns of the body hold words."""
    return [
        any(not re.fullmatch(r"-?[\d.,/]*( %)?", entry.text) for entry in sheet.frame.iloc[:, i])
        for i in range(sheet.frame.shape[1])
    ]


_RICH = _Style(lambda text: escape(visible(text)), "[bold]{}[/]", "[underline]{}[/]", " ± {}", " [dim]{}[/]")
_TEXT = replace(_RICH, best="{}", second="{}", signs={"tied": "=", "best": "*", "second": "_"})


def to_rich(sheet: Sheet, styled: bool = True) -> Group:
    """A sheet for a rich console; for one without styles, as a file is, the best and the second have signs."""
    sheet, style = _settled(sheet), _RICH if styled else _TEXT
    table = FittedTable(title=style.escape(sheet.caption) or None)
    for name, left in zip(style.flat(sheet), [True] * len(sheet.stub) + _left(sheet), strict=True):
        table.add_column(name.replace(", ", "\n"), justify="left" if left else "right")
    for _, group in groupby(sheet.lines, key=lambda line: line[0][:-1]):
        table.add_section()
        for number, (key, row) in enumerate(group):
            names = [*("" if number else style.entry(entry) for entry in key[:-1]), *map(style.entry, key[-1:])]
            table.add_row(*names, *map(style.entry, row))
    return Group(table, *style.notes(sheet))


_MARKDOWN = _Style(markdown, "**{}**", "<ins>{}</ins>", " ± {}", "<sup>{}</sup>")


def _markdown(sheet: Sheet) -> str:
    left = [True] * len(sheet.stub) + _left(sheet)
    lines = [_MARKDOWN.flat(sheet), ["---" if words else "---:" for words in left]]
    lines += [[*map(_MARKDOWN.entry, key), *map(_MARKDOWN.entry, row)] for key, row in sheet.lines]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    caption = f"{_MARKDOWN.escape(sheet.caption)}\n\n" if sheet.caption else ""
    notes = "\\\n".join(_MARKDOWN.notes(sheet))
    return f"{caption}{table}\n" + (f"\n{notes}\n" if notes else "")


_HTML = _Style(
    lambda text: html.escape(visible(text)), "<strong>{}</strong>", "<u>{}</u>",
    ' <span class="spread">± {}</span>', "<sup>{}</sup>",
)  # fmt: skip


class _Linked(_Style):
    """Entries of rows lead to the element `row-CELL` of their page."""

    def entry(self, entry: Entry) -> str:
        text = super().entry(entry)
        return f'<a href="#row-{_HTML.escape(entry.row)}">{text}</a>' if entry.row else text


def linked_html(sheet: Sheet) -> str:
    """A sheet as a <table> whose numbers lead to their rows."""
    return _html(_settled(sheet), _Linked(**vars(_HTML)))


def _html(sheet: Sheet, style: _Style = _HTML) -> str:
    stub, heads, out = sheet.stub, sheet.heads, ["<table>"]
    if sheet.caption:
        out.append(f"<caption>{_HTML.escape(sheet.caption)}</caption>")
    out.append("<thead>")
    for level, line in enumerate(heads):
        names = "" if level else "".join(f'<th scope="col" rowspan="{len(heads)}">{_HTML.escape(n)}</th>' for n in stub)
        if level < len(heads) - 1:
            cells = [f'<th scope="colgroup" colspan="{n}">{_HTML.entry(entry)}</th>' for entry, n in _spans(line)]
        else:
            cells = [f'<th scope="col">{_HTML.entry(entry)}</th>' for entry in line]
        out.append(f"<tr>{names}{''.join(cells)}</tr>")
    out.append("</thead>")
    for _, group in groupby(sheet.lines, key=lambda line: line[0][:-1]):
        out.append("<tbody>")
        for key, row in group:
            names = "".join(f'<th scope="row">{_HTML.entry(entry)}</th>' for entry in key)
            out.append(f"<tr>{names}{''.join(f'<td>{style.entry(entry)}</td>' for entry in row)}</tr>")
        out.append("</tbody>")
    if sheet.notes:
        notes = "<br/>".join(_HTML.notes(sheet))
        out.append(f'<tfoot><tr><td colspan="{len(stub) + len(heads[0])}">{notes}</td></tr></tfoot>')
    return "\n".join([*out, "</table>"]) + "\n"


_LATEX = _Style(latex, r"\textbf{{{}}}", r"\underline{{{}}}", r"{{\scriptsize$\,\pm\,${}}}", r"\textsuperscript{{{}}}")


def _latex(sheet: Sheet) -> str:
    short = short_heads(entry.text for line in sheet.heads for entry in line)
    heads = [[replace(entry, text=short.get(entry.text, entry.text)) for entry in line] for line in sheet.heads]
    named = len(sheet.stub[-1:])  # outer names become lines of their own above their rows
    told = tuple(("", f"{name.rstrip(' ↑↓')}: {head.rstrip(' ↑↓')}.") for head, name in short.items())
    sheet = replace(sheet, notes=(*sheet.notes, *told))
    head = ""
    for line in heads[:-1]:
        cells, rules, at = [""] * named, "", named + 1
        for entry, width in _spans(line):
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_LATEX.entry(entry)}}}")
            rules, at = rf"{rules}\cmidrule(lr){{{at}-{at + width - 1}}}", at + width
        head += _row(cells) + rules + "\n"
    head += _row([*map(latex, sheet.stub[-1:]), *map(_LATEX.entry, heads[-1])])
    body = ""
    for outer, group in groupby(sheet.lines, key=lambda line: line[0][:-1]):
        if outer:
            title = ", ".join(map(_LATEX.entry, outer))
            body += "\\midrule\n" if body else ""
            body += _row([rf"\multicolumn{{{named + len(heads[0])}}}{{l}}{{\textit{{{title}}}}}"])
        body += "".join(_row([*map(_LATEX.entry, (*key[-1:], *row))]) for key, row in group)
    parts = {
        "CAPTION": f"\\caption{{{latex(sheet.caption)}}}\n" if sheet.caption else "",
        "COLUMNS": "l" * named + "".join("l" if words else "c" for words in _left(sheet)), "HEAD": head, "BODY": body,
        "NOTES": "".join(f"{note}\\\\\n" for note in _LATEX.notes(sheet)),
    }  # fmt: skip
    return re.sub("|".join(parts), lambda match: parts[match[0]], DOCUMENT)


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\\n"
