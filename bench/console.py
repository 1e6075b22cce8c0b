"""What the command modules share: consoles, and how lists are read from the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fastsample.results.escaping import visible

__all__ = ["Screen", "Words", "budgets", "console", "errors", "solver_words", "split_words"]


class Screen(Console):
    """A console on which no text steers the terminal, whatever store, card, file or error message it comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, with control characters made visible; its own control codes stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else "\n".join(map(visible, text.split("\n"))), style, control)


console = Screen(width=None if sys.stdout.isatty() else 160)
errors = Screen(stderr=True)

Words = list[str] | None


def split_words(values: Words) -> tuple[str, ...] | None:
    """Comma-separated lists, given once or several times."""
    return tuple(item for value in values for item in value.split(",") if item) if values else None


def budgets(values: Words) -> tuple[int, ...]:
    """The whole numbers of `--nfe`; none where it is not given.

    Raises:
        ValueError: for a word that is no whole number.
    """
    found = []
    for word in split_words(values) or ():
        try:
            found.append(int(word))
        except ValueError:
            raise ValueError(f"--nfe takes whole numbers, not {word!r}") from None
    return tuple(found)


def solver_words(values: Words) -> tuple[str, ...] | None:
    """Like `split_words`, but `scire:order=3,mode=multistep` keeps its options."""
    if not values:
        return None
    found: list[str] = []
    for item in (item for value in values for item in value.split(",") if item):
        if "=" in item and ":" not in item and found:
            found[-1] += f",{item}"
        else:
            found.append(item)
    return tuple(found)
