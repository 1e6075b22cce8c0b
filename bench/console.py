"""What the command modules share: consoles, and how lists are read from the command line."""

from __future__ import annotations

import math
import sys

import typer
from rich.console import Console

__all__ = ["Words", "budgets", "console", "errors", "finite", "solver_words", "split_words"]

console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)

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


def finite(value: float | None) -> float | None:
    """The callback of options that are numbers: neither NaN nor infinity is one."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


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
