"""Lists as people write them: with commas, on the command line and as one text of a TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["sentences", "words"]


def words(texts: Iterable[str]) -> tuple[str, ...]:
    """The items of comma-separated texts, each once; blanks around them and empty ones do not count."""
    found = (item.strip() for text in texts for item in text.split(","))
    return tuple(dict.fromkeys(filter(None, found)))


def sentences(texts: Iterable[str]) -> tuple[str, ...]:
    """Like `words`, but `scire:order=3,mode=multistep` keeps its options, and a grid its parameters."""
    found: list[str] = []
    for text in texts:
        items = (re.sub(r"\s*([:=@])\s*", r"\1", item.strip()) for item in text.split(","))
        for place, item in enumerate(filter(None, items)):
            if place and re.match(r"[^:@=]+=", item):
                found[-1] += f",{item}"
            else:
                found.append(item)
    return tuple(dict.fromkeys(found))
