"""Commands over a store: figures, the report page and the recommendation."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer()
