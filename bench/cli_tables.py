"""Commands over a store: tables and published numbers."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer()
