"""Words and numbers as people type them: what was meant by a name, a number as text, a paper's guidance scale."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["guidance_words", "nearest", "number"]


def nearest(name: str, known: Collection[str], kind: str, otherwise: str = "") -> str:
    """An error message for an unknown name that offers the nearest ones; where none is near `otherwise`, or all.

    Case does not count. Names that begin with the unknown one come first, the shortest first.
    """
    folded, word = {one.casefold(): one for one in known}, name.casefold()
    begun = sorted((one for one in folded if word and one.startswith(word)), key=len)
    near = difflib.get_close_matches(word, folded, n=3, cutoff=0.4)
    close = [folded[one] for one in dict.fromkeys([*begun, *near])][:3]
    hint = f"did you mean {' or '.join(close)}?" if close else otherwise or f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def number(value: float) -> str:
    """The shortest text that reads back as the value."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def guidance_words(scale: float) -> str:
    """A published scale s of u + s (c - u), and what is typed for it: the weight w = s - 1 of (1 + w) c - w u.

    c is the prediction with the class, u that without (arXiv 2207.12598, eq. 6); s = 1 and w = 0 are no guidance.
    """
    return f"cfg-scale {scale:g}, here --guidance {scale - 1:g}"
