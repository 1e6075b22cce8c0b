"""The command line: every command is a few lines over a function that a notebook can call."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text
from typer.core import TyperGroup

from fastsample.bench.cli import (
    audit,
    bench,
    distill,
    export,
    find,
    gate,
    images,
    models,
    reference,
    report,
    store,
    timing,
    train,
)
from fastsample.bench.cli.about import cite, doctor, identities
from fastsample.bench.cli.words import errors
from fastsample.datasets.errors import told

__all__ = ["app", "main"]


_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, or of typer's own copy of it


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            if isinstance(error, typer.BadParameter) and error.param and not error.message:  # it is missing
                error.message = Text.from_markup(getattr(error.param, "help", None) or "").plain
            elif re.search(r"unexpected extra argument.*\([\d., -]+\)$", error.message):
                error.message += "; several numbers are separated by commas: --nfe 5,10"
            raise
        except EOFError as error:  # of a file that is cut short: typer takes it for a user who gives up
            raise RuntimeError(told(error)) from error


app = typer.Typer(
    name="fastsample",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    # bench takes --metrics and a table --metric; each knows the other's spelling. Click hands it on to every command.
    context_settings={"token_normalize_func": lambda word: "metric" if word == "metrics" else word},
    help="The reference benchmark for fast sampling of diffusion and flow models.",
)
for commands in (
    bench, models, reference, images, store, audit, report, gate, distill, find, export, identities, timing, train,
    doctor, cite,
):  # fmt: skip
    app.add_typer(commands.app)


def _version(wanted: bool) -> None:
    if wanted:
        from fastsample.bench.installation.code import code

        typer.echo(f"fastsample {code()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and the commit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What there is beside the commands."""


def main() -> None:
    """Entry point: errors become one clear message; 2 for a bad request, 1 for a failed run, 130 for Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed; the next file would be opened in its place
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of names that the terminal cannot show
    logging.getLogger("torch_fidelity").setLevel(logging.ERROR)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        bad = isinstance(error, ValueError)
        label = "error" if bad else "failed"
        errors.print(f"[bold red]{label}:[/] {escape(told(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if bad else 1)
