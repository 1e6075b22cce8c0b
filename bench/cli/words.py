"""What the command modules share: consoles, how lists and numbers are read, and how an error is told in one line."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fastsample.results.escaping import visible

__all__ = [
    "GUIDANCE", "MOST_BATCH", "MOST_NFE", "SEEDS", "TABLE_NFE", "Screen", "Words", "budgets", "console", "errors",
    "finite", "solver_words", "split_words", "told",
]  # fmt: skip

GUIDANCE = "Classifier-free guidance weight w of (1 + w) cond - w uncond: a published cfg-scale less 1."
MOST_NFE = 10_000  # evaluations of a run
TABLE_NFE = 256  # evaluations of a coefficient table, which grows with their square
MOST_BATCH = 2**16  # samples of a network call
SEEDS = 2**31  # of benchmarks, from 0; from there on are the noises that solvers are distilled on


class Screen(Console):
    """A console on which no text steers the terminal, whatever store, card, file or error message it comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, with control characters made visible; its own control codes stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else "\n".join(map(visible, text.split("\n"))), style, control)


console = Screen(width=None if sys.stdout.isatty() else 160)
errors = Screen(stderr=True)

Words = list[str] | None

_PACKAGE = Path(__file__).resolve().parents[2]
_ROOMS = tuple(_PACKAGE / room for room in ("bench", "datasets", "models", "results", "solvers"))


def split_words(values: Words) -> tuple[str, ...] | None:
    """Comma-separated lists, given once or several times."""
    return tuple(item for value in values for item in value.split(",") if item) if values else None


def budgets(values: Words, most: int = MOST_NFE) -> tuple[int, ...]:
    """The whole numbers of `--nfe`; none where it is not given.

    Raises:
        ValueError: for a word that is no whole number from 1 to `most`.
    """
    found = []
    for word in split_words(values) or ():
        try:
            found.append(int(word))
        except ValueError:
            raise ValueError(f"--nfe takes whole numbers, not {word[:60]!r}") from None
        if not 1 <= found[-1] <= most:
            raise ValueError(f"--nfe takes whole numbers from 1 to {most}, not {word[:60]}")
    return tuple(dict.fromkeys(found))


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


def told(error: BaseException) -> str:
    """What went wrong, on one line without control characters.

    A text that this package did not write has its class before it and the place behind it. With FASTSAMPLE_DEBUG set
    the traceback goes to stderr too.
    """
    if os.environ.get("FASTSAMPLE_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if any(Path(frame.filename).is_relative_to(room) for room in _ROOMS)]
        written = frames and frames[-1] in mine and (frames[-1].line or "").startswith("raise ")
        if not (written and text):
            place = f" ({Path(mine[-1].filename).relative_to(_PACKAGE)}, line {mine[-1].lineno})" if mine else ""
            text = ": ".join(filter(None, (type(error).__name__, text))) + place
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
