"""Lists as people write them: with commas, on the command line and as one text of a TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["budgets", "sentences", "words"]


_SEVERAL = "several are separated by commas: 5,10"


def budgets(
    items: Iterable[str | int], most: int, name: str = "nfe", hint: str = _SEVERAL,
) -> tuple[int, ...]:  # fmt: skip
    """The whole numbers of a list of NFE, each once.

    Args:
        items: numbers, or texts of one.
        name: what the list is called by who gave it; hint: what ends a refusal.

    Raises:
        ValueError: for an item that is no whole number from 1 to `most`.
    """
    found = []
    for item in items:
        text = str(item).strip()
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise ValueError(f"{name} takes whole numbers from 1 to {most}, not {text[:60]}; {hint}")
        found.append(int(text))
    return tuple(dict.fromkeys(found))


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
