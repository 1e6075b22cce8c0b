"""Tables for a screen of any width: no word of a head or a cell is folded, and what does not fit beside it stands below.

A table is drawn in its frame where it fits, without one where that makes it fit, and else in parts one below the other,
each of which begins with the columns that name the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

__all__ = ["FittedTable"]

_COMFORT = 20  # characters that a column of words has before it is set beside others
_PIECES = re.compile(r"[^/,;:@=]+[/,;:@=]*|[/,;:@=]+")  # of a word that is longer than its line


class FittedTable(Table):
    """A rich table that is never squeezed. Its heads and cells are markup."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:  # type: ignore[override]
        """The table as wide as the screen, in as many parts as that needs."""
        columns = [[_text(console, cell) for cell in (column.header, *column.cells)] for column in self.columns]
        least = [max((cell_len(word) for text in column for word in text.plain.split()), default=1)
                 for column in columns]  # fmt: skip
        whole = [max((cell_len(line) for text in column for line in text.plain.split("\n")), default=1)
                 for column in columns]  # fmt: skip
        wanted = [low if column.justify == "right" else max(low, min(high, _COMFORT))
                  for low, high, column in zip(least, whole, self.columns, strict=True)]  # fmt: skip
        count, room = len(columns), options.max_width
        framed = sum(wanted) + 3 * count + 1 <= room
        parts = [list(range(count))] if framed else _parts(columns, wanted, room)
        for number, part in enumerate(parts):
            space = room - (3 * len(part) + 1 if framed else 2 * (len(part) - 1))
            widths = _widths([least[i] for i in part], [whole[i] for i in part], space)
            title = self.title if not number else None
            yield from self._part([columns[i] for i in part], part, widths, title, framed)

    def _part(
        self, cells: list[list[Text]], part: list[int], widths: list[int], title: object, framed: bool
    ) -> Iterator[Table]:
        look = {} if framed else {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
        table = Table(title=title, title_justify="left", header_style="bold", **look)  # type: ignore[arg-type]
        fitted = [[_broken(text, width) for text in column] for column, width in zip(cells, widths, strict=True)]
        for i, column, width in zip(part, fitted, widths, strict=True):
            table.add_column(column[0], justify=self.columns[i].justify, width=width, overflow="fold")
        for row, texts in zip(self.rows, zip(*(column[1:] for column in fitted), strict=True), strict=True):
            table.add_row(*texts, end_section=row.end_section)
        yield table


def _text(console: Console, cell: object) -> Text:
    return console.render_str(str(cell), highlight=False) if not isinstance(cell, Text) else cell


def _parts(columns: Sequence[Sequence[Text]], wanted: Sequence[int], room: int) -> list[list[int]]:
    """Columns of each part: those that name the rows, and as many of the others as fit."""
    names, rows, seen = 0, len(columns[0]) - 1, 0
    while seen < rows and names < len(columns) - 1 and sum(wanted[: names + 1]) + 2 * names < room / 2:
        names += 1
        seen = len({tuple(text.plain for text in row) for row in zip(*columns[:names], strict=True)}) - 1
    first, found = list(range(names)), [list(range(names))]
    for i in range(names, len(columns)):
        part = [*found[-1], i]
        if len(found[-1]) > names and sum(wanted[j] for j in part) + 2 * (len(part) - 1) > room:
            part = [*first, i]
            found.append(part)
        found[-1] = part
    return found


def _widths(least: Sequence[int], whole: Sequence[int], space: int) -> list[int]:
    """Widths of columns: whole where there is room, else the widest are narrowed first, down to their longest words."""
    if sum(whole) <= space:
        return list(whole)
    cap = max(whole)
    while cap > 1 and sum(max(low, min(high, cap)) for low, high in zip(least, whole, strict=True)) > space:
        cap -= 1
    widths = [max(low, min(high, cap)) for low, high in zip(least, whole, strict=True)]
    widths[widths.index(max(widths))] -= max(0, sum(widths) - space)  # a word longer than the screen
    return [max(1, width) for width in widths]


def _broken(text: Text, width: int) -> Text:
    """The text with an interval below its number, and a word longer than the width on several lines."""
    places = [match.start() for match in re.finditer(r" ± ", text.plain)] if cell_len(text.plain) > width else []
    for word in re.finditer(r"\S+", text.plain):
        begin = word.start()
        for piece in _PIECES.finditer(text.plain, word.start(), word.end()) if cell_len(word[0]) > width else ():
            if piece.start() > begin and cell_len(text.plain[begin : piece.end()]) > width:
                places.append(begin := piece.start())
    return Text("\n").join(line[1:] if line.plain.startswith(" ±") else line for line in text.divide(sorted(places)))
