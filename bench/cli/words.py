"""What the command modules share: consoles, and how lists and numbers are read."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fastsample.bench.limits import MOST_NFE
from fastsample.bench.lists import budgets as read_budgets
from fastsample.bench.lists import sentences, words
from fastsample.datasets.home import expanded
from fastsample.results.forms.escaping import visible
from fastsample.results.storage.writable import check_file

__all__ = [
    "EMBEDDED",
    "EXTRACTOR_WEIGHTS",
    "GUIDANCE",
    "GUIDE",
    "INTERVAL",
    "MODEL",
    "NEGATIVE",
    "PROMPTS",
    "SIZE",
    "Screen",
    "Words",
    "budget_option",
    "budgets",
    "console",
    "errors",
    "finite",
    "kept",
    "path",
    "solver_words",
    "split_words",
    "told",
    "weights_by_name",
    "writable",
]

EXTRACTOR_WEIGHTS = "NAME=FILE: weights of a feature extractor, as vgg16=vgg16.pth; several times for several."

MODEL = r"Model id, .safetensors file, .toml card, or diffusers:NAME\[@REV], a folder or hub id."
GUIDANCE = "Classifier-free guidance weight w of (1 + w) cond - w uncond: a published cfg-scale less 1."
GUIDE = "Model that guides in the place of uncond: unconditional, or a weaker one (autoguidance)."
PROMPTS = "File of prompts of text-to-image models, one a line; sample i has prompt i."
NEGATIVE = "Prompt that --cfg leads away from, of text-to-image models."
EMBEDDED = "Guidance that networks distilled from guidance take as an input, as Flux does."
SIZE = "Size of images of text-to-image models in pixels: SIDE or WIDTHxHEIGHT."
INTERVAL = "LO,HI: guidance only where LO < sigma/alpha <= HI, outside one network call; one end may be empty."


class Screen(Console):
    """A console on which no text steers the terminal, whatever store, card, file or error message it comes from.

    It colours no number of a sentence, and wraps sentences on a terminal alone: a pipe has no width.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"emoji": False, "highlight": False} | given)  # a:wave: is a name
        self.soft_wrap = not self.is_terminal

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, with control characters made visible; its own control codes stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else "\n".join(map(visible, text.split("\n"))), style, control)


_SEEN = (sys.stdout and sys.stdout.isatty()) or "COLUMNS" in os.environ
console = Screen(width=None if _SEEN else 160)
errors = Screen(stderr=True)

Words = list[str] | None


def path(text: str | Path) -> Path:
    """What options and arguments that are paths are read with; shells leave the ~ of `--out=~/x` and `a,~/b`."""
    return expanded(text)


def split_words(values: Words) -> tuple[str, ...] | None:
    """Lists, given once or several times; None where they are not."""
    return words(values) if values else None


def weights_by_name(words: Words, inception: Path | None = None) -> dict[str, Path]:
    """The files of `--extractor-weights` and of `--inception-weights` by extractor.

    Raises:
        ValueError: for a word that is not NAME=FILE, or two files of one.
    """
    found = {"inception-v3-compat": inception} if inception else {}
    for word in words or ():
        name, _, file = word.partition("=")
        if not name or not file:
            raise ValueError(f"--extractor-weights takes NAME=FILE, as vgg16=vgg16-397923af.pth, not {word[:60]!r}")
        if name in found:
            raise ValueError(f"--extractor-weights: {name} has two files, {found[name]} and {file}")
        found[name] = path(file)
    return found


def budgets(values: Words, most: int = MOST_NFE) -> tuple[int, ...]:
    """The whole numbers of `--nfe`; none where it is not given.

    Raises:
        ValueError: for a word that is no whole number from 1 to `most`.
    """
    return read_budgets(words(values or ()), most, "--nfe")


def budget_option(about: str, most: int = MOST_NFE) -> Any:
    """The option `--nfe` of a command that takes one number."""

    def one(value: str | None) -> int | None:
        return None if value is None else read_budgets([value], most, "--nfe", "this command takes one")[0]

    return typer.Option(parser=str, metavar="<int>", callback=one, help=about)


def finite(value: float | None) -> float | None:
    """The callback of options that are numbers: neither NaN nor infinity is one."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def solver_words(values: Words) -> tuple[str, ...] | None:
    """Lists of solvers or grids, given once or several times; None where they are not."""
    return sentences(values) if values else None


def writable(file: Path | None) -> Path | None:
    """The callback of options that name a file to write: what cannot be written is told before the work.

    Raises:
        ValueError: for a file that cannot be written.
    """
    if file is not None:
        check_file(file)
    return file


@contextmanager
def kept(how: str) -> Iterator[None]:
    """Ctrl-C inside says what is kept and how to go on, and ends the command with 130."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print(f"interrupted; {how}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(130) from None


@contextmanager
def told(stage: str) -> Iterator[Callable[[str], None]]:
    """What is done inside, beginning with a stage: beside a wheel on a terminal, in a log as a line now and then."""
    from fastsample.bench.jobs.stages import Stages

    if console.is_terminal:
        with console.status(Text(stage)) as status:
            yield lambda line: status.update(Text(line))
    else:
        with Stages(console, stage) as stages:
            yield stages.detail
