"""Words that people type: what was meant by a name that is not known, and a number as text."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["nearest", "number"]


def nearest(name: str, known: Collection[str], kind: str, otherwise: str = "") -> str:
    """An error message for an unknown name that offers the nearest ones; where none is near `otherwise`, or all."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else otherwise or f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def number(value: float) -> str:
    """The shortest text that reads back as the value."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
