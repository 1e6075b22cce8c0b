"""Commands that guard a build: a baseline, and the check against it."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer()
