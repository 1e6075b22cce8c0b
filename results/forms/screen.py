"""Tables for a screen of any width: no word of a head or a cell is folded.

A table is drawn in its frame where it fits, without one where that makes it fit, and else in parts one below the other,
each of which begins with the columns that name the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["FittedTable"]

_COMFORT = 20  # characters that a column of words has before it is set beside others
_NAMES = 0.65  # of a screen that the columns which name the rows may have
# What is not folded: words, a number with the letters of its footnotes, its interval with them.
_ATOMS = re.compile(r"± \S+(?: [=*_a-z](?:,[a-z]+)*$)?|\S+(?: [=*_a-z](?:,[a-z]+)*$)?", re.M)
_PIECES = re.compile(r"[^/,;:@=]+[/,;:@=]*|[/,;:@=]+")  # of a word that is longer than its line


@dataclass(frozen=True)
class _Column:
    """The head of a column and its cells, with the words above its head, if it shares them with its neighbours."""

    head: Text
    cells: list[Text]
    right: bool
    above: str = ""

    @cached_property
    def widths(self) -> tuple[int, int, int]:
        """Of its longest word, with comfort, and of its longest line."""
        texts = [text.plain for text in (self.head, *self.cells)]
        least = max((cell_len(atom) for text in texts for atom in _ATOMS.findall(text)), default=1)
        whole = max((cell_len(line) for text in texts for line in text.split("\n")), default=1)
        return least, least if self.right else max(least, min(whole, _COMFORT)), whole

    def under(self) -> _Column:
        """The column without what is above its head."""
        *above, head = self.head.split("\n")
        return replace(self, head=head, above=", ".join(line.plain for line in above))


class FittedTable(Table):
    """A rich table that is never squeezed. Its heads and cells are markup."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:  # type: ignore[override]
        """The table in the width of the screen, in as many parts as that needs."""

        def text(cell: Any) -> Text:
            return cell if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)

        columns = [
            _Column(text(column.header), [text(cell) for cell in column.cells], column.justify == "right")
            for column in self.columns
        ]
        title, room = str(self.title or ""), options.max_width
        comfort = sum(column.widths[1] for column in columns)
        if comfort + 3 * len(columns) + 1 <= room:
            yield from _titled(title, self._part(columns, room, framed=True))
        elif comfort + 2 * (len(columns) - 1) <= room:
            yield from _titled(title, self._part(columns, room))
        else:
            for number, (above, part) in enumerate(_parts([column.under() for column in columns], room)):
                yield from [Text("")] * bool(number)
                told = "\n".join(filter(None, (title * (not number), escape(above))))
                yield from _titled(told, self._part(part, room))

    def _part(self, columns: Sequence[_Column], room: int, framed: bool = False) -> Table:
        table = Table(header_style="bold")
        if not framed:
            table.box, table.show_edge, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, False, (0, 1, 0, 0)
        widths = _widths(columns, room - (3 * len(columns) + 1 if framed else 2 * (len(columns) - 1)))
        lines = []
        for column, width in zip(columns, widths, strict=True):
            side: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(_broken(column.head, width), justify=side, width=width, overflow="fold")
            below = any(" ± " in cell.plain and cell_len(cell.plain) > width for cell in column.cells)
            lines.append([_broken(cell, width, below) for cell in column.cells])
        for row, texts in zip(self.rows, zip(*lines, strict=True), strict=True):
            table.add_row(*texts, end_section=row.end_section)
        return table


def _titled(title: str, table: Table) -> Iterator[Text | Table]:
    """A table with what stands above it, which may be wider than it."""
    if title:
        yield Text.from_markup(title, style="table.title")
    yield table


def _parts(columns: Sequence[_Column], room: int) -> list[tuple[str, list[_Column]]]:
    """What stands above each part, and its columns: those that name the rows, and as many of the others as fit.

    Where few columns name no row a number does.
    """

    def wide(part: Sequence[_Column]) -> int:
        return sum(column.widths[1] + 2 for column in part) - 2

    names, rows, seen = 0, len(columns[0].cells), 0
    while seen < rows and names < len(columns) - 1 and wide(columns[: names + 1]) <= _NAMES * room:
        names += 1
        seen = len({tuple(cell.plain for cell in row) for row in zip(*(c.cells for c in columns[:names]), strict=True)})
    first, found = list(columns[:names]), list[tuple[str, list[_Column]]]()
    if seen < rows:  # else nobody knows which line of a part goes with which of another
        first.insert(0, _Column(Text("#"), [Text(str(number)) for number in range(1, rows + 1)], right=True))
    for above, group in groupby(columns[names:], key=lambda column: column.above):
        part: list[_Column] = []
        for column in group:
            if part and wide([*first, *part, column]) > room:
                found.append((above, [*first, *part]))
                part = []
            part.append(column)
        found.append((above, [*first, *part]))
    return found


def _widths(columns: Sequence[_Column], space: int) -> list[int]:
    """Widths of columns: whole where there is room, else the widest are narrowed first, down to their longest words."""
    ends = [(least, whole) for column in columns for least, _, whole in [column.widths]]
    cap = max(whole for _, whole in ends)
    while cap > 1 and sum(max(least, min(whole, cap)) for least, whole in ends) > space:
        cap -= 1
    widths = [max(least, min(whole, cap)) for least, whole in ends]
    widths[widths.index(max(widths))] -= max(0, sum(widths) - space)  # a word longer than the screen
    return [max(1, width) for width in widths]


def _broken(text: Text, width: int, below: bool = False) -> Text:
    """The text with a word longer than the width on several lines, and with its interval below its number or not."""
    places = [match.start() for match in re.finditer(r" ± ", text.plain)] if below else []
    for word in re.finditer(r"\S+", text.plain):
        begin = word.start()
        for piece in _PIECES.finditer(text.plain, word.start(), word.end()) if cell_len(word[0]) > width else ():
            if piece.start() > begin and cell_len(text.plain[begin : piece.end()]) > width:
                places.append(begin := piece.start())
    return Text("\n").join(line[1:] if line.plain.startswith(" ±") else line for line in text.divide(sorted(places)))
