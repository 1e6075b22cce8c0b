"""Commands of distilled solvers: train, explain, export, import."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer()
